import { setImmediate } from 'node:timers/promises';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it, vi } from 'vitest';
import { MOVE_MARK_BEGINS } from '../src/engine/moves/move-mark.ts';
import { type KeyRange, rangesBehind } from '../src/engine/port/index-port.ts';
import { type Position, TOMBSTONE_TTL_MS } from '../src/engine/port/port.ts';
import { ofOneState, type StoreSnapshot } from '../src/engine/port/snapshot-port.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import type { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { fenceHead, removeRows } from '../src/engine/postgres/rows/fence.ts';
import { leaveMarker } from '../src/engine/postgres/rows/file-row.ts';
import { SnapshotConnections } from '../src/engine/postgres/snapshots/snapshot-connections.ts';
import { type IndexPlan, planQuery } from '../src/queries/plan.ts';
import { whereSchema } from '../src/queries/where.ts';
import { NO_NEWS, openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import { readValue } from '../src/values/value.ts';
import { Scheduler } from '../src/work/scheduler.ts';
import { CuttingProxy } from './support/cutting-proxy.ts';
import { database, newProject, server, sql, usePostgresEngine } from './support/postgres-engine.ts';
import { openOn, plain, settled } from './support/postgres-indexes.ts';

const IDS = ['a', 'b', 'c', 'd'];
/** A page of two documents. */
const page = (after: Position) => ({ after, limit: 2, bytesMax: 1_000_000 });

/** Lists a snapshot in pages of two. */
async function idsIn(snapshot: StoreSnapshot, between: () => Promise<unknown> = async () => undefined) {
  const ids: string[] = [];
  for (let after: Position | undefined = 0; after !== undefined; ) {
    const { documents, next }: Awaited<ReturnType<StoreSnapshot['list']>> = await snapshot.list(page(after));
    ids.push(...documents.map(({ metadata }) => metadata._id));
    after = next;
    if (after !== undefined) await between();
  }
  return ids;
}

const fill = (store: PostgresStore) => store.commit(IDS.map((id) => put(id, '{}')));

describe('snapshots on PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  /** A project with four documents, opened with connections of its own. */
  const opened = async (
    { project, on = database }: { project?: PostgresProject; on?: Database } = {},
    heldMsMax?: number,
  ) => {
    const of = project ?? (await newProject());
    const connections = new SnapshotConnections({
      database: on,
      clock: of.clock,
      ...(heldMsMax === undefined ? {} : { heldMsMax }),
    });
    const store = await of.open(on, NO_NEWS, { snapshots: connections });
    await fill(store);
    return { project: of, store, connections };
  };

  it('of one page need one statement and no transaction', async () => {
    const { store } = await opened();
    const [query, transaction] = [vi.spyOn(database, 'query'), vi.spyOn(database, 'transaction')];
    using snapshot = store.snapshot('notes');
    expect((await snapshot.list(page(0))).documents).toHaveLength(2);
    expect(await snapshot.total()).toBe(4);
    expect([query.mock.calls.length, transaction.mock.calls.length]).toEqual([1, 0]);
    vi.restoreAllMocks();
    await store[Symbol.asyncDispose]();
  });

  for (const isPooled of [false, true])
    it(`begin again when the collection changed after the first page, and continue when another did (pooled: ${isPooled})`, async () => {
      await using own = openTestDatabase(server.urlOf('bundoc'), { isPooled });
      const { store } = await opened({ on: own });
      const before = await store.position();
      const other = { ...put('x', '{}'), ref: ref('x', 'other') };
      const writes = [other, put('e', '{}'), remove('a')];
      const changing = async () => {
        const write = writes.shift();
        if (write !== undefined) await commitOne(store, write);
      };
      {
        using snapshot = store.snapshot('notes');
        const list = vi.spyOn(snapshot, 'list');
        expect(await ofOneState(() => idsIn(snapshot, changing))).toEqual(IDS);
        expect([snapshot.asOf, list.mock.calls.length]).toEqual([before, 2]);
      }
      using snapshot = store.snapshot('notes');
      const list = vi.spyOn(snapshot, 'list');
      // It does not show the deletion, which came after it had begun again.
      expect(await ofOneState(() => idsIn(snapshot, changing))).toEqual([...IDS, 'e']);
      expect(await snapshot.total()).toBe(5);
      expect([snapshot.asOf, list.mock.calls.length]).toEqual([before + 2, 5]);
      expect(await store.position()).toBe(before + 3);
      await store[Symbol.asyncDispose]();
    });

  it('of a requested position are refused once a deletion after it may be forgotten', async () => {
    const clock = new FakeClock();
    const project = await newProject({ clock });
    const { store } = await opened({ project });
    const asOf = await store.position();
    const other = (write: ReturnType<typeof put>) => ({ ...write, ref: ref('x', 'other') });
    await commitOne(store, other(put('x', '{}')));
    await commitOne(store, other(remove('x')));
    using before = store.snapshot('notes', { asOf });
    expect(await idsIn(before)).toEqual(IDS);
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    using after = store.snapshot('notes', { asOf });
    await expect(after.list(page(0))).rejects.toMatchObject({ code: 'snapshot_too_old' });
    await store[Symbol.asyncDispose]();
  });

  it('of a requested position are refused when their collection changes before the second page', async () => {
    const { store } = await opened();
    using snapshot = store.snapshot('notes', { asOf: await store.position() });
    const listed = idsIn(snapshot, () => commitOne(store, put('e', '{}')));
    await expect(ofOneState(() => listed)).rejects.toMatchObject({ code: 'snapshot_too_old' });
    await store[Symbol.asyncDispose]();
  });

  it('end after a time, free their connection then, and refuse the rest of the answer', async () => {
    const { store, connections } = await opened({}, 50);
    using snapshot = store.snapshot('notes');
    const listed = idsIn(snapshot, async () => {
      await snapshot.total();
      await snapshot.get('a');
      expect(connections.held).toBe(1);
      await expect.poll(() => connections.held).toBe(0);
    });
    await expect(listed).rejects.toMatchObject({ code: 'snapshot_too_old', retryAfterS: 1 });
    await store[Symbol.asyncDispose]();
  });

  it('let the server end them soon after a node has died', async () => {
    const { project, connections } = await opened();
    const show = { name: 'limits', text: "SELECT current_setting('idle_in_transaction_session_timeout')" };
    const { held, rows } = await connections.begin(project.project, { statement: show, values: [] });
    expect(rows).toEqual([['35s']]);
    held.end(new Error('over'));
    await held.freed;
  });

  it('refuse the rest of an answer whose connection breaks, and free its place', async () => {
    await using proxy = await CuttingProxy.open(server.port);
    await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
    const { store, connections } = await opened({ on: behind });
    using snapshot = store.snapshot('notes');
    await snapshot.list(page(0));
    await snapshot.get('a');
    proxy.cutNow();
    for (let tries = 0; tries < 2; tries++)
      await expect(snapshot.list(page(0))).rejects.toMatchObject({ code: 'storage_unavailable' });
    await expect.poll(() => connections.held).toBe(0);
    await store[Symbol.asyncDispose]();
  });

  it('end when their store is closed', async () => {
    const { store, connections } = await opened();
    using snapshot = store.snapshot('notes');
    await snapshot.list(page(0));
    await snapshot.get('a');
    await store[Symbol.asyncDispose]();
    await expect(snapshot.get('a')).rejects.toMatchObject({ code: 'snapshot_too_old' });
    await expect.poll(() => connections.held).toBe(0);
  });

  describe('of a project that another node', () => {
    const afterwards = async (change: (project: string) => Promise<void>) => {
      const clock = new FakeClock();
      const project = await newProject({ clock });
      const { store } = await opened({ project });
      using snapshot = store.snapshot('notes');
      await snapshot.list(page(0));
      await snapshot.get('a');
      await change(project.project);
      // The same as when the answer begins now.
      clock.advance(1_000);
      const refusals = await Promise.all(
        [snapshot.get('b'), store.list({ collection: 'notes', ...page(0) })].map((read) =>
          Promise.resolve(read).catch((error: unknown) => error),
        ),
      );
      await store[Symbol.asyncDispose]();
      return refusals;
    };

    it('deletes are refused within a moment', async () => {
      const refusals = await afterwards((project) =>
        removeRows((action) => database.transaction('', action), project, 'deleted'),
      );
      for (const refusal of refusals) expect(refusal).toMatchObject({ code: 'project_destroyed' });
    });

    it('moves are refused within a moment', async () => {
      const refusals = await afterwards(async (project) => {
        await database.transaction('', async (transaction) => {
          await leaveMarker(transaction, project, `${MOVE_MARK_BEGINS}x`);
          await fenceHead(transaction, project);
          return true;
        });
      });
      for (const refusal of refusals) expect(refusal).toMatchObject({ code: 'project_moving' });
    });
  });

  it('show the documents as they were before a rotation, while another node seals them again', async () => {
    const project = await newProject();
    const { store } = await opened({ project });
    const seal = async () => {
      await project.rotate(database);
      const other = await project.open(database);
      await other.reseal(100);
      await other[Symbol.asyncDispose]();
    };
    using snapshot = store.snapshot('notes');
    await snapshot.get('a');
    expect(await idsIn(snapshot, seal)).toEqual(IDS);
    await store[Symbol.asyncDispose]();
  });

  it('keep the index of an answer that loses it', async () => {
    const project = await newProject();
    const store = await openOn(project, database);
    await store.define('notes', { indexes: [plain('n')] }, { kind: 'none' });
    await settled(store);
    await store.commit(IDS.map((id) => put(id, '{"n":1}')));
    using snapshot = await store.snapshot('notes');
    const found = planQuery(
      whereSchema.parse(readValue('{"n":1}')),
      [],
      await snapshot.usable(),
    ) as IndexPlan;
    const { index } = found;
    const search = (ranges: readonly KeyRange[]) =>
      snapshot.search({ index, ranges, backwards: false, limit: 2, bytesMax: 1_000_000 });
    const first = await search(found.ranges);
    // Begins a transaction.
    await snapshot.get('a');
    await store.define('notes', { indexes: [] }, { kind: 'none' });
    await settled(store);
    expect(store.indexes?.usable('notes')).toEqual([]);
    await expect.poll(() => sql('SELECT count(*) FROM bundoc.indexes')).toBe('0');
    const second = await search(rangesBehind(found.ranges, String(first?.last), false));
    const entries = [...(first?.entries ?? []), ...(second?.entries ?? [])];
    expect(entries.map(({ id, document }) => document?.metadata._id ?? id)).toEqual(IDS);
    await store[Symbol.asyncDispose]();
  });

  it('show no earlier state for a position that a commit reaches only after the read', async () => {
    const { store } = await opened();
    const asOf = (await store.position()) + 1;
    const query = database.query.bind(database);
    vi.spyOn(database, 'query').mockImplementation(async (statement, values) => {
      const rows = await query(statement, values);
      if (!statement.name.startsWith('bundoc-list-')) return rows;
      vi.restoreAllMocks();
      await commitOne(store, put('a', '{"v":2}'));
      return rows;
    });
    using snapshot = store.snapshot('notes', { asOf });
    await expect(snapshot.list(page(0))).rejects.toMatchObject({ code: 'invalid_request' });
    expect(await store.position()).toBe(asOf);
    await store[Symbol.asyncDispose]();
  });

  describe('wait for a connection,', () => {
    const project = 'p';
    const statement = { name: 'one', text: 'SELECT 1' };
    const begin = (connections: SnapshotConnections, subject: string) =>
      runInShare({ subject, project }, () => connections.begin(project, { statement, values: [] }));

    /** The database, as if it had this many connections. */
    const ofSize = (connectionsMax: number) => ({
      connectionsMax,
      query: database.query.bind(database),
      run: database.run.bind(database),
      transaction: database.transaction.bind(database),
    });

    it('of which few connections have one, so that the others are left for commits', async () => {
      const connections = new SnapshotConnections({ database: ofSize(3), clock: new FakeClock() });
      const first = await begin(connections, 'one');
      const second = begin(connections, 'another');
      await setImmediate();
      expect([connections.held, connections.waiting]).toEqual([1, 1]);
      first.held.end(new Error('over'));
      (await second).held.end(new Error('over'));
      await expect.poll(() => connections.held).toBe(0);
    });

    it('and leave the queue at once when their request is cancelled, without a place of a reader meanwhile', async () => {
      const connections = new SnapshotConnections({ database: ofSize(3), clock: new FakeClock() });
      const of = await newProject();
      const store = await of.open(database, NO_NEWS, { snapshots: connections });
      await fill(store);
      const busy = await begin(connections, 'busy');
      await using scheduler = new Scheduler();
      const steps: string[] = [];
      const place = { leave: () => void steps.push('leave'), retake: async () => void steps.push('retake') };
      const secondPage = async (signal: AbortSignal) => {
        using work = scheduler.work({ subject: 'one', project }, 'projection', signal);
        using snapshot = store.snapshot('notes', { place });
        await snapshot.list(page(0));
        return await snapshot.list({ ...page(2), work });
      };
      const client = new AbortController();
      const cancelled = secondPage(client.signal);
      const served = secondPage(new AbortController().signal);
      await expect.poll(() => connections.waiting).toBe(2);
      expect(steps).toEqual(['leave', 'leave']);
      client.abort(new Error('the client has gone'));
      await expect(cancelled).rejects.toThrow('the client has gone');
      expect([connections.held, connections.waiting]).toEqual([1, 1]);
      busy.held.end(new Error('over'));
      expect((await served).documents).toHaveLength(2);
      expect(steps).toEqual(['leave', 'leave', 'retake']);
      await expect.poll(() => [connections.held, connections.waiting]).toEqual([0, 0]);
      await store[Symbol.asyncDispose]();
    });

    it('and end it when the reader gets no place again', async () => {
      const connections = new SnapshotConnections({ database: ofSize(3), clock: new FakeClock() });
      const of = await newProject();
      const store = await of.open(database, NO_NEWS, { snapshots: connections });
      await fill(store);
      const place = { leave: () => undefined, retake: () => Promise.reject(new Error('no place')) };
      using snapshot = store.snapshot('notes', { place });
      await snapshot.list(page(0));
      await expect(snapshot.list(page(2))).rejects.toThrow('no place');
      await expect.poll(() => connections.held).toBe(0);
      await store[Symbol.asyncDispose]();
    });

    it('and a subject with many scans does not let the first scan of another wait', async () => {
      const connections = new SnapshotConnections({ database: ofSize(5), clock: new FakeClock() });
      const first = await begin(connections, 'many');
      const order: string[] = [];
      const ended = new Error('over');
      const later = ['many', 'many', 'many', 'third'].map(async (subject) => {
        const { held } = await begin(connections, subject);
        order.push(subject);
        held.end(ended);
        await held.freed;
      });
      // Beyond the connections for scans, of which the first subject has all.
      const { held } = await begin(connections, 'another');
      for (const one of [first.held, held]) one.end(ended);
      await Promise.all(later);
      expect(order[0]).toBe('third');
      await expect.poll(() => [connections.held, connections.waiting]).toEqual([0, 0]);
    });
  });
});
