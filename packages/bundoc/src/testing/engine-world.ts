import { AsyncLocalStorage } from 'node:async_hooks';
import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import fc from 'fast-check';
import { expect } from 'vitest';
import { type DekVersion, ProjectCipher } from '../crypto/project-cipher.ts';
import { readDocumentBody } from '../crypto/stored-text.ts';
import { makeDirectoryDurably, replaceFile } from '../engine/files/disk/disk.ts';
import { Backlog } from '../engine/files/documents/backlog.ts';
import { createSealedCache } from '../engine/files/documents/sealed-cache.ts';
import { FilesEngine } from '../engine/files/files-engine.ts';
import type { LogLimits } from '../engine/files/log/log-api.ts';
import { SealedFolder } from '../engine/files/projects/sealed-folder.ts';
import type { EmbeddedStore } from '../engine/files/store/embedded-store.ts';
import type { SealedChange, StoreMetadata, Write } from '../engine/port.ts';
import { SEAL_LIMITS } from '../engine/seal-budget.ts';
import { Crash, type SimulatedDisk } from './simulated-disk.ts';

const realSetTimeout = globalThis.setTimeout;

/** What a step does with a document. */
interface Op {
  readonly id: string;
  /** Undefined deletes. */
  readonly pad: number | undefined;
}

/** Commits that are given at once, and what happens to projects between such groups. */
export type EngineStep =
  | { readonly kind: 'commits' | 'commits on a full disk'; readonly commits: readonly CommitStep[] }
  | {
      readonly kind: 'checkpoint' | 'checkpoint beside' | 'close' | 'delete' | 'away and back' | 'rotate';
      readonly project: number;
    }
  | { readonly kind: 'folder fails' | 'folder works'; readonly project: number }
  | { readonly kind: 'log fails'; readonly writes: number; readonly when: 'before' | 'after' }
  | { readonly kind: 'restart' | 'settle' };
interface CommitStep {
  readonly project: number;
  readonly ops: readonly Op[];
}

const PROJECTS = 8;
const IDS = ['a', 'b', 'c', 'd', 'e'];
const project = fc.integer({ min: 0, max: PROJECTS - 1 });
const op = fc.record({
  id: fc.constantFrom(...IDS),
  pad: fc.option(
    fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 0, max: 2_500 }) },
      { weight: 1, arbitrary: fc.integer({ min: 5_000, max: 30_000 }) },
    ),
    { nil: undefined, freq: 4 },
  ),
});
const commits = fc.array(fc.record({ project, ops: fc.array(op, { minLength: 1, maxLength: 3 }) }), {
  minLength: 1,
  maxLength: 12,
});
export const engineStep: fc.Arbitrary<EngineStep> = fc.oneof(
  { weight: 12, arbitrary: commits.map((all) => ({ kind: 'commits', commits: all }) as const) },
  { weight: 1, arbitrary: commits.map((all) => ({ kind: 'commits on a full disk', commits: all }) as const) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('checkpoint', 'checkpoint beside', 'close', 'delete', 'away and back', 'rotate'),
      project,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('folder fails' as const), project }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('folder works' as const), project }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('log fails' as const),
      writes: fc.integer({ min: 1, max: 5 }),
      when: fc.constantFrom('before', 'after'),
    }),
  },
  { weight: 2, arbitrary: fc.constantFrom({ kind: 'restart' } as const, { kind: 'settle' } as const) },
);

/** What the documents should be: the value of each, by id. */
export type Model = ReadonlyMap<string, number>;

interface Given {
  readonly ops: readonly Op[];
  readonly values: readonly number[];
  /** While nothing is known, it may have taken effect. */
  fate: 'unknown' | 'acknowledged' | 'refused';
}

/** A process of the service. Once it is dead, none of its timers ends. */
const processes = new AsyncLocalStorage<{ isDead: boolean }>();

/** Whether what runs belongs to a process that has died. */
export const isOfTheDead = (): boolean => processes.getStore()?.isDead === true;

let counter = 0;

/** A project as its users know it. It outlives engines and their processes. */
export class EngineProject {
  readonly name: string;
  readonly directory: string;
  #nameKey: KeyObject = createSecretKey(randomBytes(32));
  #versions: [DekVersion, ...DekVersion[]] = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
  cipher: ProjectCipher;
  /** Whether it is there; undefined when a crash left that open. */
  isThere: boolean | undefined = false;
  /** What was there before {@link given}. */
  base: Model = new Map();
  given: Given[] = [];
  /** What another storage has of it while it is away. */
  away: { readonly changes: SealedChange[]; readonly rest: StoreMetadata } | undefined;
  isBeingDeleted = false;
  /** Every state that it has had, or may have had, as {@link sorted} gives it. */
  readonly states = new Set<string>();

  constructor(name: string) {
    this.name = name;
    this.directory = `/projects/${name}`;
    this.cipher = new ProjectCipher(name, this.#versions, this.#nameKey);
  }

  get projectFile(): Buffer {
    return Buffer.from(JSON.stringify({ project: this.name, versions: this.#versions.length }));
  }

  /** The same project, as somebody knows it who has a copy of its keys. */
  fork(): EngineProject {
    const forked = new EngineProject(this.name);
    forked.#nameKey = this.#nameKey;
    forked.#versions = this.#versions;
    forked.cipher = this.cipher;
    [forked.base, forked.given, forked.isThere] = [
      this.base,
      this.given.map((one) => ({ ...one })),
      this.isThere,
    ];
    for (const state of this.states) forked.states.add(state);
    [forked.away, forked.isBeingDeleted] = [this.away, this.isBeingDeleted];
    return forked;
  }

  rotate(): void {
    const version = this.#versions[0].version + 1;
    this.#versions = [{ version, dek: createSecretKey(randomBytes(32)) }, ...this.#versions];
    this.cipher = new ProjectCipher(this.name, this.#versions, this.#nameKey);
  }

  /** Its key is destroyed: a new project of that name gets another key. */
  forget(): void {
    this.#nameKey = createSecretKey(randomBytes(32));
    this.#versions = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
    this.cipher = new ProjectCipher(this.name, this.#versions, this.#nameKey);
    [this.base, this.given, this.isThere, this.isBeingDeleted] = [new Map(), [], false, false];
  }

  /**
   * What may be there: the state after the last commit that was acknowledged, and after each behind it whose
   * fate is not known.
   */
  get allowed(): Model[] {
    let model = this.base;
    let allowed: Model[] = [model];
    this.states.add(sorted(model));
    for (const { ops, values, fate } of this.given) {
      if (fate === 'refused') continue;
      const next = applied(model, ops, values);
      if (next === undefined) {
        expect(fate, 'the delete of what is not there').toBe('unknown');
        continue;
      }
      model = next;
      this.states.add(sorted(model));
      allowed = fate === 'acknowledged' ? [model] : [...allowed, model];
    }
    return allowed;
  }

  /** What was seen once stays. */
  fix(content: Model): void {
    this.base = content;
    this.given = [];
    this.isThere = true;
  }
}

/** The model after a commit, or undefined when the store must refuse it: a delete of what is not there. */
function applied(model: Model, ops: readonly Op[], values: readonly number[]): Model | undefined {
  const next = new Map(model);
  for (const [at, { id, pad }] of ops.entries()) {
    if (pad !== undefined) next.set(id, values[at] as number);
    else if (!next.delete(id)) return undefined;
  }
  return next;
}

const NO_PRECONDITION = { kind: 'none' } as const;
const ref = (id: string) => ({ collection: 'notes', id });
function writeOf({ id, pad }: Op, value: number): Write {
  if (pad === undefined) return { kind: 'delete', ref: ref(id), precondition: NO_PRECONDITION };
  const { content } = readDocumentBody(Buffer.from(`{"v":${value},"pad":"${'x'.repeat(pad)}"}`));
  return { kind: 'put', ref: ref(id), content, precondition: NO_PRECONDITION };
}

export const sorted = (model: Model) => JSON.stringify([...model].sort());

const LIMITS: LogLimits = {
  segmentBytes: 65_536,
  segmentsMin: 4,
  segmentsMax: 10,
  frameBytes: 16_384,
  chunkBytes: 4_096,
};

const STEP_MS_MAX = 20_000;
const PAGE = { limit: 10_000, bytesMax: Number.POSITIVE_INFINITY };

/**
 * A data folder with many projects, what its users know of them, and one process after the other that serves
 * it.
 */
export class EngineWorld {
  readonly projects: readonly EngineProject[];
  readonly clock = new FakeClock();
  readonly #storageId = randomBytes(16);
  readonly #open = new Map<EngineProject, EmbeddedStore>();
  /** Projects whose folders fail. */
  readonly #failing = new Set<EngineProject>();
  readonly #beside: Promise<unknown>[] = [];
  #process = { isDead: false };
  #disk: SimulatedDisk | undefined;
  #engine: FilesEngine | undefined;
  #hadLog = false;
  /** Operations of the log that fail yet, and after how many of them. */
  #logFails: { writes: number; readonly when: 'before' | 'after' } | undefined;
  /** Whether anything but the folders of projects has failed since {@link start}. */
  #isUnsure = false;
  /** Refusals that nothing explains. */
  readonly unexplained: unknown[] = [];
  readonly stuck: string[] = [];

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
   * A world that knows what this one knows, for a copy of its disk. Keys are the same; what happens in it is
   * its own.
   */
  fork(): EngineWorld {
    const forked = new EngineWorld(0);
    Object.assign(
      forked.projects,
      this.projects.map((one) => one.fork()),
    );
    this.#storageId.copy(forked.#storageId);
    forked.#hadLog = this.#hadLog;
    return forked;
  }

  /**
   * Runs something in the process; it ends when the process does, too. Nothing that is under way settles
   * after a crash.
   */
  async until(work: () => Promise<void>): Promise<'done' | 'crashed'> {
    const { disk } = this;
    const crashed = disk.crashes.catch((error: unknown) => {
      if (!(error instanceof Crash)) throw error;
    });
    const working = processes.run(this.#process, work);
    const outcome = await Promise.race([
      working.then(
        () => 'done' as const,
        (error: unknown) => {
          if (disk.crashed) return 'crashed' as const;
          throw error;
        },
      ),
      crashed.then(() => 'crashed' as const),
    ]);
    if (outcome === 'crashed') this.#die();
    return outcome;
  }

  #die(): void {
    this.#process.isDead = true;
    this.#open.clear();
    this.#engine = undefined;
    this.#beside.length = 0;
  }

  /** Every present user of the disk dies. */
  boot(disk: SimulatedDisk): void {
    this.#die();
    this.#process = { isDead: false };
    this.#disk = disk;
    disk.failing = (operation) => this.#fails(operation);
    this.#logFails = undefined;
    this.#isUnsure = false;
  }

  #fails(operation: string): 'before' | 'after' | undefined {
    for (const { directory } of this.#failing)
      if (operation.endsWith(` ${directory}`) || operation.includes(` ${directory}/`)) return 'before';
    const fails = this.#logFails;
    if (fails === undefined || !/^(write|fdatasync) \/log\//.test(operation)) return undefined;
    this.#isUnsure = true;
    if (--fails.writes === 0) this.#logFails = undefined;
    return fails.when;
  }

  /** Opens the engine, and completes what a crash has cut short as the service does by what BunKMS knows. */
  async start(): Promise<void> {
    const { disk } = this;
    this.#engine = await FilesEngine.open({
      ...{ disk, logDisk: disk, dataDir: '/', projectsDir: '/projects', storageId: this.#storageId },
      ...{ mustExist: this.#hadLog, logLimits: LIMITS, checkpointBytes: 40_000 },
      ...{ backlog: new Backlog(16_384), clock: this.clock },
      onStuck: (handles) => this.stuck.push(...handles),
    });
    this.#hadLog = true;
    for (const one of this.projects) {
      if (this.#failing.has(one)) continue;
      if (one.isBeingDeleted) await this.#remove(one);
      if (one.away !== undefined) await this.#comeBack(one);
    }
  }

  /** The store of a project, which is made when it is not there. */
  async open(one: EngineProject): Promise<EmbeddedStore> {
    const known = this.#open.get(one);
    if (known !== undefined && !known.failed) return known;
    if (known !== undefined) await this.#close(one);
    const { engine, disk, clock } = this;
    const { name, directory, cipher } = one;
    await engine.writeBirth(name, directory);
    const names = (await disk.list(directory)) ?? [];
    if (!names.includes(PROJECT_FILE)) {
      expect(one.isThere, `${name} was there`).not.toBe(true);
      one.isThere = undefined;
      await engine.create(name, directory, cipher, one.projectFile);
      one.isThere = true;
    }
    const store = await engine.openStore({
      ...{ project: name, directory, projectFile: one.projectFile, disk, cipher, clock },
      cache: createSealedCache(0),
      onIntegrityError: (fileName) => this.unexplained.push(`${name}: ${fileName} does not open`),
      onFailure: () => undefined,
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

  /** Ends the process in order. */
  async stop(): Promise<void> {
    await Promise.allSettled(this.#beside.splice(0));
    for (const one of [...this.#open.keys()]) await this.#close(one);
    const { engine } = this;
    this.#engine = undefined;
    await engine[Symbol.asyncDispose]();
  }

  async run(steps: readonly EngineStep[]): Promise<void> {
    for (const step of steps) {
      await this.#inTime(step);
      // What a process that has died would do next is nothing to the disk of the next one.
      if (isOfTheDead()) await new Promise(() => undefined);
    }
    this.#allWorks();
    await this.#goesOn();
  }

  async #inTime(step: EngineStep): Promise<void> {
    const ended = Promise.withResolvers<never>();
    const timer = realSetTimeout(() => ended.reject(new Error(`${JSON.stringify(step)} hangs`)), STEP_MS_MAX);
    try {
      await Promise.race([this.#step(step), ended.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Everything works again: then each project can be written to, soon. */
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
    this.#failing.clear();
    this.#logFails = undefined;
    this.clock.advance(2_000);
  }

  async #step(step: EngineStep): Promise<void> {
    switch (step.kind) {
      case 'commits':
        await this.commitAll(step.commits.map(({ project: at, ops }) => ({ one: this.#at(at), ops })));
        break;
      case 'commits on a full disk': {
        const { disk } = this;
        this.#isUnsure = true;
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
        this.#failing.add(this.#at(step.project));
        break;
      case 'folder works':
        this.#failing.delete(this.#at(step.project));
        break;
      case 'log fails':
        this.#logFails = { writes: step.writes, when: step.when };
        break;
      case 'restart':
      case 'settle':
        await this.#restart(step.kind === 'settle');
        break;
      default:
        await this.#ofProject(step.kind, this.#at(step.project));
    }
  }

  #at(at: number): EngineProject {
    return this.projects[at % this.projects.length] as EngineProject;
  }

  async #restart(isSettled: boolean): Promise<void> {
    const hadUnsure = this.#isUnsure;
    await this.stop();
    // A log that cannot be written prevents the start; the supervisor tries again.
    for (let attempt = 0; ; attempt++)
      try {
        await this.start();
        break;
      } catch (error) {
        if (!(error instanceof AppError) || attempt === 10) throw error;
        if (this.#logFails === undefined && !hadUnsure && !this.#isUnsure) throw error;
      }
    if (!isSettled) return;
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
          return await this.#remove(one);
        case 'rotate':
          return await this.#rotate(one);
        case 'away and back':
          return await this.#moveAwayAndBack(one);
      }
    } catch (error) {
      this.#mayBe(error, one);
      // What was begun is ended as soon as it can be: the service asks BunKMS what is unfinished.
      for (let attempt = 0; one.isBeingDeleted || one.away !== undefined; attempt++) {
        this.#failing.delete(one);
        await setTimeout(500);
        this.clock.advance(1_000);
        try {
          await (one.isBeingDeleted ? this.#remove(one) : this.#comeBack(one));
        } catch (again) {
          if (!(again instanceof AppError) || attempt === 50) throw again;
        }
      }
    }
  }

  /** An error that a project may give while something fails. */
  #mayBe(error: unknown, one: EngineProject, wasFailing = this.#failing.has(one)): void {
    // A process that has died says nothing.
    if (!(error instanceof AppError) || isOfTheDead() || this.disk.crashed) throw error;
    if (error.code === 'project_damaged') this.unexplained.push(error.cause ?? error);
    else if (!wasFailing && !this.#isUnsure) this.unexplained.push(error);
  }

  async #remove(one: EngineProject): Promise<void> {
    const { disk, engine } = this;
    await engine.forget(one.name);
    await disk.removeTree(one.directory);
    await disk.syncDirectory('/projects');
    one.forget();
  }

  async #rotate(one: EngineProject): Promise<void> {
    await this.#close(one);
    const { disk, engine } = this;
    await engine.syncBirth(one.name);
    await replaceFile(disk, '/tmp', `${one.directory}/${PROJECT_FILE}`, one.projectFile);
    one.rotate();
    const store = await this.open(one);
    while (store.pendingReencryption > 0 && (await store.reseal(2)) > 0);
  }

  /** As a move does: what it is is known elsewhere before it is gone here. */
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
    await this.#comeBack(one);
  }

  async #comeBack(one: EngineProject): Promise<void> {
    const { away, name, directory, cipher, projectFile } = one;
    if (away === undefined) return;
    const { disk, engine } = this;
    await engine.forget(name);
    await disk.removeTree(directory);
    await makeDirectoryDurably(disk, directory);
    await disk.makeDirectory(`${directory}/docs`);
    await disk.syncDirectory(directory);
    const folder = new SealedFolder({ disk, directory, tmp: '/tmp', project: name });
    await folder.put(away.changes);
    const { handle } = await folder.finish(cipher, away.rest, projectFile);
    await engine.arrived(name, handle, cipher);
    await replaceFile(disk, '/tmp', `${directory}/${PROJECT_FILE}`, projectFile);
    one.away = undefined;
  }

  async checkpointAll(): Promise<void> {
    for (const one of this.projects) if (one.isThere === true) await (await this.open(one)).checkpoint();
  }

  /** Commits to many projects at once. */
  async commitAll(
    all: readonly { readonly one: EngineProject; readonly ops: readonly Op[] }[],
  ): Promise<PromiseSettledResult<unknown>[]> {
    const { disk } = this;
    const stores = new Map<EngineProject, EmbeddedStore | AppError>();
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
        const wasFailing = this.#failing.has(one) || store.failed;
        try {
          await store.commit(ops.map((write, at) => writeOf(write, given.values[at] as number)));
          given.fate = 'acknowledged';
        } catch (error) {
          if (disk.crashed || isOfTheDead()) throw error;
          given.fate = 'refused';
          if (!hasCode(error, 'document_not_found')) this.#mayBe(error, one, wasFailing || store.failed);
          throw error;
        }
      }),
    );
  }

  /**
   * Each project is one of the states that it may be in, and agrees with itself.
   *
   * @returns what is there.
   */
  async check(): Promise<Map<string, Model>> {
    const contents = new Map<string, Model>();
    this.#allWorks();
    for (const one of this.projects) {
      await this.engine.writeBirth(one.name, one.directory);
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

  /** What was seen stays. */
  fix(contents: ReadonlyMap<string, Model>): void {
    for (const one of this.projects) {
      const content = contents.get(one.name);
      if (content !== undefined) one.fix(content);
    }
  }
}

/** What a project has, by reads, by the list, and by the changes. */
export async function contentOf(store: EmbeddedStore): Promise<Model> {
  const content = new Map<string, number>();
  for (const id of IDS) {
    const text = (await store.get(ref(id)))?.text.toString();
    if (text !== undefined) content.set(id, Number(/"v":(\d+)/.exec(text)?.[1]));
  }
  const listed = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 10_000_000 });
  expect(listed.documents.map(({ metadata }) => metadata._id).sort()).toEqual([...content.keys()].sort());
  const { changes } = await store.changes(0, 1_000);
  const living = changes.filter(({ deleted }) => !deleted).map((change) => change.ref.id);
  expect(living.sort()).toEqual([...content.keys()].sort());
  return content;
}
