import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { WAIT_MS_MAX } from '@bundoc/shared/admission/pool';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect } from 'vitest';
import { replaceFile } from '../engine/files/disk/disk.ts';
import { Backlog } from '../engine/files/documents/backlog.ts';
import { createSealedCache } from '../engine/files/documents/sealed-cache.ts';
import { FilesEngine } from '../engine/files/files-engine.ts';
import type { LogLimits } from '../engine/files/log/log-api.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { SEAL_LIMITS } from '../engine/port/seal-budget.ts';
import { EngineFaults } from './engine-faults.ts';
import { inTime, isOfTheDead, runIn } from './engine-process.ts';
import {
  bringBack,
  contentOf,
  EngineProject,
  type Given,
  type Model,
  removeProject,
  sorted,
  writeOf,
} from './engine-project.ts';
import { type EngineStep, type Op, PROJECTS } from './engine-steps.ts';
import type { SimulatedDisk } from './simulated-disk.ts';

let counter = 0;

const LIMITS: LogLimits = {
  segmentBytes: 65_536,
  segmentsMin: 4,
  segmentsMax: 10,
  frameBytes: 16_384,
  chunkBytes: 4_096,
};

const PAGE = { limit: 10_000, bytesMax: Number.POSITIVE_INFINITY };

/**
 * A data folder with many projects, and what their users know. One process after another serves it.
 */
export class EngineWorld {
  readonly projects: readonly EngineProject[];
  readonly clock = new FakeClock();
  readonly storageId = randomBytes(16);
  readonly #open = new Map<EngineProject, FileStore>();
  readonly #faults = new EngineFaults();
  readonly #beside: Promise<unknown>[] = [];
  #process = { isDead: false };
  #disk: SimulatedDisk | undefined;
  #engine: FilesEngine | undefined;
  #hadLog = false;
  /** Refusals without an explanation. */
  readonly unexplained: unknown[] = [];
  readonly stuck: string[] = [];
  /** What the archive lacks, for the next start. */
  keepFrom: number | undefined;

  constructor(projects = PROJECTS) {
    this.projects = Array.from({ length: projects }, (_, at) => new EngineProject(`p${at}`));
  }

  get engine(): FilesEngine {
    if (this.#engine === undefined) throw new Error('no process runs');
    return this.#engine;
  }

  get disk(): SimulatedDisk {
    if (this.#disk === undefined) throw new Error('no process runs');
    return this.#disk;
  }

  /**
   * A world with the same knowledge and keys, for a copy of the disk. Later changes do not affect this one.
   */
  fork(): EngineWorld {
    const forked = new EngineWorld(0);
    Object.assign(
      forked.projects,
      this.projects.map((one) => one.fork()),
    );
    this.storageId.copy(forked.storageId);
    forked.#hadLog = this.#hadLog;
    return forked;
  }

  /** Runs work in the process. It ends early when the process dies. */
  async until(work: () => Promise<void>): Promise<'done' | 'crashed'> {
    const outcome = await runIn(this.#process, this.disk, work);
    if (outcome === 'crashed') this.#die();
    return outcome;
  }

  #die(): void {
    this.#process.isDead = true;
    this.#open.clear();
    this.#engine = undefined;
    this.#beside.length = 0;
  }

  /** Starts a new process on a disk. The former process dies. */
  boot(disk: SimulatedDisk): void {
    this.#die();
    this.#process = { isDead: false };
    this.#disk = disk;
    disk.failing = (operation) => this.#faults.of(operation);
    this.#faults.boot();
  }

  /** Opens the engine, and completes interrupted work as the service does with what BunKMS knows. */
  async start(): Promise<void> {
    const { disk } = this;
    this.#engine = await FilesEngine.open({
      disk,
      logDisk: disk,
      dataDir: '/',
      projectsDir: '/projects',
      storageId: this.storageId,
      mustExist: this.#hadLog,
      logLimits: LIMITS,
      checkpointBytes: 40_000,
      backlog: new Backlog(16_384),
      clock: this.clock,
      keepFrom: this.keepFrom,
      onStuck: (failed) => this.stuck.push(...failed.map(({ handle }) => handle)),
    });
    this.#hadLog = true;
    for (const one of this.projects) {
      if (this.#faults.folders.has(one)) continue;
      if (one.isBeingDeleted) await removeProject(one, this);
      if (one.away !== undefined) await bringBack(one, this);
    }
  }

  /** Opens the store of a project, and creates the project if it is missing. */
  async open(one: EngineProject): Promise<FileStore> {
    const known = this.#open.get(one);
    if (known !== undefined && !known.failed) return known;
    if (known !== undefined) await this.#close(one);
    const { engine, disk, clock } = this;
    const { name, directory, cipher } = one;
    const names = (await disk.list(directory)) ?? [];
    if (!names.includes(PROJECT_FILE)) {
      expect(one.isThere, `${name} was there`).not.toBe(true);
      one.isThere = undefined;
      await engine.create(name, cipher, one.projectFile);
      one.isThere = true;
    }
    const store = await engine.openStore({
      project: name,
      directory,
      projectFile: one.projectFile,
      disk,
      cipher,
      clock,
      cache: createSealedCache(0),
      onIntegrityError: (fileName) => this.unexplained.push(`${name}: ${fileName} does not open`),
      onFailure: () => undefined,
      positionFloor: () => 0,
      onRotationDue: () => undefined,
      sealLimits: SEAL_LIMITS,
    });
    this.#open.set(one, store);
    return store;
  }

  async #close(one: EngineProject): Promise<void> {
    const store = this.#open.get(one);
    this.#open.delete(one);
    await store?.[Symbol.asyncDispose]();
  }

  /** Stops the process gracefully. */
  async stop(): Promise<void> {
    await Promise.allSettled(this.#beside.splice(0));
    for (const one of [...this.#open.keys()]) await this.#close(one);
    const { engine } = this;
    this.#engine = undefined;
    await engine[Symbol.asyncDispose]();
  }

  async run(steps: readonly EngineStep[]): Promise<void> {
    for (const step of steps) await this.step(step);
    this.#allWorks();
    await this.#goesOn();
  }

  /** Ends all faults, and requires that each project soon accepts writes. */
  async #goesOn(): Promise<void> {
    for (const one of this.projects)
      for (let attempt = 0; ; attempt++) {
        const [outcome] = await this.commitAll([{ one, ops: [{ id: 'a', pad: 10 }] }]);
        if (outcome?.status === 'fulfilled') break;
        if (attempt === 100) throw outcome?.reason;
        this.clock.advance(1_000);
        await setTimeout(500);
      }
  }

  #allWorks(): void {
    this.disk.full = false;
    this.#faults.end();
    this.clock.advance(2_000);
  }

  async step(step: EngineStep): Promise<void> {
    await inTime(step, this.#do(step));
    // A dead process must not change the disk of the next one.
    if (isOfTheDead()) await new Promise(() => undefined);
  }

  async #do(step: EngineStep): Promise<void> {
    switch (step.kind) {
      case 'commits':
        await this.commitAll(step.commits.map(({ project: at, ops }) => ({ one: this.#at(at), ops })));
        break;
      case 'commits on a full disk': {
        const { disk } = this;
        this.#faults.isUnsure = true;
        disk.full = true;
        const given = this.commitAll(
          step.commits.map(({ project: at, ops }) => ({ one: this.#at(at), ops })),
        );
        // Deletes may wait until there is room.
        await Promise.race([given, setTimeout(1_000)]);
        disk.full = false;
        this.clock.advance(2_000);
        await given;
        break;
      }
      case 'folder fails':
        this.#faults.folders.add(this.#at(step.project));
        break;
      case 'folder works':
        this.#faults.folders.delete(this.#at(step.project));
        break;
      case 'log fails':
        this.#faults.log = { writes: step.writes, when: step.when };
        break;
      case 'restart':
      case 'carry all':
        await this.#restart(step.kind === 'carry all');
        break;
      default:
        await this.#ofProject(step.kind, this.#at(step.project));
    }
  }

  #at(at: number): EngineProject {
    return this.projects[at % this.projects.length] as EngineProject;
  }

  async #restart(isCarried: boolean): Promise<void> {
    const hadUnsure = this.#faults.isUnsure;
    await this.stop();
    // A log that cannot be written prevents the start, so a supervisor would try again.
    for (let attempt = 0; ; attempt++)
      try {
        await this.start();
        break;
      } catch (error) {
        if (!(error instanceof AppError) || attempt === 10) throw error;
        if (this.#faults.log === undefined && !hadUnsure && !this.#faults.isUnsure) throw error;
      }
    if (!isCarried) return;
    try {
      await this.engine.carryAll();
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
    }
  }

  async #ofProject(kind: string, one: EngineProject): Promise<void> {
    try {
      if (kind === 'close') return await this.#close(one);
      if (one.isThere !== true) return;
      switch (kind) {
        case 'checkpoint':
          return await (await this.open(one)).checkpoint();
        case 'checkpoint beside':
          this.#beside.push((await this.open(one)).checkpoint().catch(() => undefined));
          return;
        case 'delete':
          await this.#close(one);
          one.isBeingDeleted = true;
          return await removeProject(one, this);
        case 'rotate':
          return await this.#rotate(one);
        case 'away and back':
          return await this.#moveAwayAndBack(one);
      }
    } catch (error) {
      this.#mayBe(error, one);
      // The service asks BunKMS for unfinished work, and finishes it as soon as possible.
      for (let attempt = 0; one.isBeingDeleted || one.away !== undefined; attempt++) {
        this.#faults.folders.delete(one);
        await setTimeout(500);
        this.clock.advance(1_000);
        try {
          await (one.isBeingDeleted ? removeProject(one, this) : bringBack(one, this));
        } catch (again) {
          if (!(again instanceof AppError) || attempt === 50) throw again;
        }
      }
    }
  }

  /** An error that a project may give while something fails. */
  #mayBe(error: unknown, one: EngineProject, wasFailing = this.#faults.folders.has(one)): void {
    // A dead process reports nothing.
    if (!(error instanceof AppError) || isOfTheDead() || this.disk.crashed) throw error;
    if (error.code === 'project_damaged') this.unexplained.push(error.cause ?? error);
    else if (!wasFailing && !this.#faults.isUnsure) this.unexplained.push(error);
  }

  async #rotate(one: EngineProject): Promise<void> {
    await this.#close(one);
    await replaceFile(this.disk, '/tmp', `${one.directory}/${PROJECT_FILE}`, one.projectFile);
    one.rotate();
    const store = await this.open(one);
    while (store.pendingReencryption > 0 && (await store.reseal(2)).goesOn);
  }

  /** Moves a project away and back. As in a move, another storage has its content before it is gone here. */
  async #moveAwayAndBack(one: EngineProject): Promise<void> {
    const store = await this.open(one);
    using _ = await store.fence();
    const { changes } = await store.sealedChanges(0, PAGE);
    const rest = await store.metadata();
    await this.#close(one);
    const [content] = one.allowed;
    expect(one.allowed).toHaveLength(1);
    one.fix(content as Model);
    one.away = { changes: [...changes], rest };
    await bringBack(one, this);
  }

  async checkpointAll(): Promise<void> {
    for (const one of this.projects) if (one.isThere === true) await (await this.open(one)).checkpoint();
  }

  /** Commits to many projects at once. */
  async commitAll(
    all: readonly { readonly one: EngineProject; readonly ops: readonly Op[] }[],
  ): Promise<PromiseSettledResult<unknown>[]> {
    const { disk } = this;
    const stores = new Map<EngineProject, FileStore | AppError>();
    for (const { one } of all) {
      if (stores.has(one)) continue;
      try {
        stores.set(one, await this.open(one));
      } catch (error) {
        if (disk.crashed || isOfTheDead()) throw error;
        this.#mayBe(error, one);
        stores.set(one, error as AppError);
      }
    }
    return Promise.allSettled(
      all.map(async ({ one, ops }) => {
        const store = stores.get(one);
        if (store === undefined || store instanceof AppError) throw store;
        const given: Given = { ops, values: ops.map(() => ++counter), fate: 'unknown' };
        one.given.push(given);
        const wasFailing = this.#faults.folders.has(one) || store.failed;
        const begunMs = performance.now();
        try {
          await store.commit(ops.map((write, at) => writeOf(write, given.values[at] as number)));
          given.fate = 'acknowledged';
        } catch (error) {
          if (disk.crashed || isOfTheDead()) throw error;
          given.fate = 'refused';
          // On a machine that stalls, a commit may wait too long for the disk.
          const isLate = hasCode(error, 'overloaded') && performance.now() - begunMs >= WAIT_MS_MAX;
          if (!isLate && !hasCode(error, 'document_not_found'))
            this.#mayBe(error, one, wasFailing || store.failed);
          throw error;
        }
      }),
    );
  }

  /**
   * Requires that each project has one of its allowed states, and that all reads agree.
   *
   * @returns the content of each project.
   */
  async check(): Promise<Map<string, Model>> {
    const contents = new Map<string, Model>();
    this.#allWorks();
    for (const one of this.projects) {
      const isThere = (await this.disk.list(one.directory))?.includes(PROJECT_FILE) === true;
      if (one.isThere !== undefined) expect(isThere, `${one.name} is there`).toBe(one.isThere);
      if (!isThere) {
        if (one.isThere === undefined) one.forget();
        continue;
      }
      const content = await contentOf(await this.open(one));
      expect(one.allowed.map(sorted), one.name).toContain(sorted(content));
      contents.set(one.name, content);
    }
    expect(this.unexplained).toEqual([]);
    return contents;
  }

  /** Records the content that was read: it must not change without a commit. */
  fix(contents: ReadonlyMap<string, Model>): void {
    for (const one of this.projects) {
      const content = contents.get(one.name);
      if (content !== undefined) one.fix(content);
    }
  }
}
