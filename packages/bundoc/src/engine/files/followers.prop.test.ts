import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { HistoryWorld, isDamaged } from '../../testing/history-world.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { put, remove } from '../../testing/writes.ts';
import type { ProjectStore } from '../port/port.ts';

const RUNS = Number(process.env['CRASH_RUNS'] ?? runs(30, 3_000));
const SEED = Number(process.env['CRASH_SEED'] ?? randomInt(1, 2_147_483_646));
const RUN = { numRuns: RUNS, seed: SEED, interruptAfterTimeLimit: runs(60_000, 3_600_000) };

beforeEach(() => {
  process.stdout.write(`followers: CRASH_SEED=${SEED}\n`);
});

const PROJECTS = ['a', 'b'];
const IDS = ['u', 'v', 'w', 'x', 'y', 'z'];
const PAGE = 3;

const project = fc.constantFrom(...PROJECTS);
const nth = fc.nat(9);
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      project,
      writes: fc.array(fc.tuple(fc.constantFrom(...IDS), fc.boolean()), { minLength: 1, maxLength: 12 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('follow' as const),
      project,
      nth,
      pages: fc.integer({ min: 1, max: 8 }),
    }),
  },
  fc.record({
    kind: fc.constantFrom('checkpoint' as const, 'damage' as const, 'put folder back' as const),
    project,
    nth,
  }),
  fc.record({ kind: fc.constantFrom('back up' as const, 'restore' as const), project, nth }),
  fc.record({
    kind: fc.constant('restore BunKMS beside a commit' as const),
    project,
    nth,
    isLarge: fc.boolean(),
  }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('copy' as const, 'put back' as const), nth }) },
  fc.record({
    kind: fc.constantFrom(...(['stop', 'crash', 'lose power', 'back up BunKMS', 'restore BunKMS'] as const)),
    nth,
  }),
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

/** A follower of a project's feed, with each document's revision as the feed told. */
class Follower {
  readonly #docs = new Map<string, string>();
  #place = { position: 0, horizon: 0 };
  /** Commits may be lost since the last complete read. */
  mayRestart = false;
  /** A repair may have numbered documents again since then. */
  mayRepeat = false;
  restarts = 0;

  /** Reads some pages. @param isAlone whether nothing is written. @returns whether it has read all. */
  async read(store: ProjectStore, pages: number, isAlone = true): Promise<boolean> {
    for (let page = 0; page < pages; page++) {
      const { position, horizon } = this.#place;
      const found = await store.changes(position, PAGE, horizon).catch((error: unknown) => {
        if (!hasCode(error, 'position_gone')) throw error;
      });
      if (found === undefined) {
        expect(this.mayRestart, 'a follower restarts only if commits may be lost').toBe(true);
        this.restarts++;
        this.#docs.clear();
        this.#place = { position: 0, horizon: 0 };
        continue;
      }
      expect(found.position).toBeGreaterThanOrEqual(position);
      for (const { ref, rev, deleted } of found.changes) {
        if (!this.mayRepeat && !deleted) expect(this.#docs.get(ref.id), 'each change once').not.toBe(rev);
        if (deleted) this.#docs.delete(ref.id);
        else this.#docs.set(ref.id, rev);
      }
      this.#place = { position: found.position, horizon: found.horizon };
      if (found.changes.length === PAGE) continue;
      if (!isAlone) return true;
      const listed = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1e9 });
      const present = listed.documents.map(({ metadata: { _id, _rev } }) => [_id, _rev]);
      expect([...this.#docs].sort()).toEqual(present.sort());
      this.mayRestart = false;
      this.mayRepeat = false;
      return true;
    }
    return false;
  }
}

/** All that a history has besides the storage. */
class History {
  readonly world = new HistoryWorld();
  readonly followers = new Map(PROJECTS.map((name) => [name, [new Follower(), new Follower()]]));
  readonly #copies: SimulatedDisk[] = [];
  /** The copies since one was put back. */
  #ownCopies: SimulatedDisk[] = [];
  readonly #kmsBackups: ReturnType<HistoryWorld['kmsBackup']>[] = [];
  readonly #backups = new Map<string, Buffer[]>();
  #value = 0;

  async run(one: Step): Promise<void> {
    const { world } = this;
    world.clock.advance(1_000);
    switch (one.kind) {
      case 'write':
        for (const [id, isPut] of one.writes) {
          const store = await this.#open(one.project);
          const pad = 'x'.repeat(300 * (this.#value % 5));
          const write = isPut ? put(id, `{"n":${this.#value++},"pad":"${pad}"}`) : remove(id);
          await store.commit([write]).catch((error: unknown) => {
            if (!hasCode(error, 'document_not_found')) throw error;
          });
        }
        return;
      case 'follow': {
        const all = this.followers.get(one.project)!;
        await all[one.nth % all.length]!.read(await this.#open(one.project), one.pages);
        return;
      }
      case 'restore BunKMS beside a commit': {
        const store = await this.#open(one.project);
        const pad = 'x'.repeat(one.isLarge ? 600_000 : 10);
        const writes = ['v', 'w', 'x'].map((id) => put(id, `{"n":${this.#value++},"pad":"${pad}"}`));
        const committed = store.commit(writes);
        const isTaken = await Promise.race([setImmediate(true), committed.then(() => false)]);
        this.#lost(PROJECTS);
        await world.restoreKmsBeside();
        const [follower, other] = this.followers.get(one.project)!;
        // Both read while the commit may be decided and not readable.
        if (isTaken) await follower!.read(store, 20, false);
        await committed;
        await other!.read(store, 20);
        return;
      }
      case 'checkpoint':
        return (await this.#open(one.project)).checkpoint();
      case 'damage':
        return this.#damage(one.project, one.nth);
      case 'put folder back':
        return this.#putFolderBack(one.project, one.nth);
      case 'back up': {
        await this.#open(one.project);
        const backup = await world.backUp(one.project);
        this.#backups.set(one.project, [...(this.#backups.get(one.project) ?? []), backup]);
        return;
      }
      case 'restore': {
        const backups = this.#backups.get(one.project) ?? [];
        const backup = backups[one.nth % Math.max(1, backups.length)];
        if (backup === undefined) return;
        await world.restore(one.project, backup);
        this.#lost([one.project]);
        return;
      }
      case 'stop':
        return world.stop();
      case 'crash':
        return world.powerCut('everything');
      case 'lose power':
        return world.powerCut('synced only');
      case 'copy':
        this.#ownCopies.push(world.disk.powerCut('everything'));
        this.#copies.push(this.#ownCopies.at(-1)!);
        return;
      case 'put back': {
        const copy = this.#copies[one.nth % Math.max(1, this.#copies.length)];
        if (copy === undefined || !copy.files().has('/storage.json')) return;
        await world.putBack(copy);
        this.#ownCopies = [];
        this.#lost(PROJECTS);
        return;
      }
      case 'back up BunKMS':
        this.#kmsBackups.push(world.kmsBackup());
        return;
      case 'restore BunKMS': {
        const backup = this.#kmsBackups[one.nth % Math.max(1, this.#kmsBackups.length)];
        if (backup === undefined || backup.size === 0) return;
        await world.restoreKms(backup);
        // Nothing is lost, but a follower from before an earlier loss may have to restart.
        this.#lost(PROJECTS);
      }
    }
  }

  /** The project, after the operator has done what its error says. */
  async #open(name: string): Promise<ProjectStore> {
    try {
      return await this.world.open(name);
    } catch (error) {
      if (!isDamaged(error)) throw error;
      this.#lost([name]);
      if (this.world.disk.files().has(`/projects/${name}/project.json`)) await this.world.repair(name);
      else await this.world.acceptLoss(name);
      return await this.world.open(name);
    }
  }

  /** The catalog is damaged, or the newest file of the log. */
  async #damage(name: string, at: number): Promise<void> {
    await this.#open(name);
    const disk = await this.world.halt();
    const files = [...disk.files()].filter(([path]) =>
      at % 2 === 0 ? path === `/projects/${name}/catalog` : path.startsWith(`/projects/${name}/carried/`),
    );
    const [path, bytes] = files.at(-1) ?? [];
    if (path === undefined || bytes === undefined) return;
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(changed.length - 1) ^ 1, changed.length - 1);
    disk.tamper(path, changed);
    this.#lost([name]);
  }

  /**
   * An older copy of one project's folder is put back, without a take-over. One of another history may have
   * document files that the log does not know: they are an error.
   */
  async #putFolderBack(name: string, at: number): Promise<void> {
    const copy = this.#ownCopies[at % Math.max(1, this.#ownCopies.length)];
    const folder = `/projects/${name}/`;
    if (copy === undefined || !copy.files().has(`${folder}project.json`)) return;
    const disk = await this.world.halt();
    for (const path of [...disk.files().keys()]) if (path.startsWith(folder)) disk.tamper(path, undefined);
    for (const part of ['', 'docs', 'carried']) await disk.makeDirectory(join(`/projects/${name}`, part));
    for (const [path, bytes] of copy.files()) if (path.startsWith(folder)) disk.tamper(path, bytes);
    this.#lost([name]);
  }

  #lost(names: readonly string[]): void {
    for (const name of names)
      for (const follower of this.followers.get(name)!) {
        follower.mayRestart = true;
        follower.mayRepeat = true;
      }
  }

  /** Every follower reads to the end. @returns how often some have restarted. */
  async end(): Promise<number> {
    for (const name of PROJECTS)
      for (const follower of this.followers.get(name)!)
        while (!(await follower.read(await this.#open(name), 100)));
    await this.world.stop();
    return [...this.followers.values()].flat().reduce((sum, { restarts }) => sum + restarts, 0);
  }
}

describe('a follower of a project', () => {
  it('ends with the current documents and reads each change once, over take-overs, restores, crashes and repairs', async () => {
    const seen = { histories: 0, restarts: 0 };
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60 }), async (steps) => {
        const history = new History();
        for (const one of steps) await history.run(one);
        seen.histories++;
        seen.restarts += await history.end();
      }),
      RUN,
    );
    process.stdout.write(`followers: ${JSON.stringify(seen)}\n`);
    expect(seen.restarts).toBeGreaterThan(0);
  });
});
