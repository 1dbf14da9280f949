import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { describeProjectStore } from '../engine/conformance/conformance.ts';
import { DEFINITIONS } from '../engine/port/definition.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';
import { commitOne, put, ref, remove } from '../testing/writes.ts';
import { SKIPPED_MAX } from './alive-documents.ts';
import { type DefinedStore, openDefinedStore } from './defined-store.ts';

describeProjectStore('a DefinedStore on the files engine', async () => {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const reopen = async () => openDefinedStore(await project.open(disk), project.clock);
  const store = await reopen();
  // The whole suite runs with a definition of another collection, which must change nothing.
  await store.define(
    'other-one',
    { indexes: [], schema: { type: 'object' }, ttl: { field: 'x', seconds: 0 } },
    { kind: 'none' },
  );
  return { store, reopen };
});

const open: DefinedStore[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
});

async function start() {
  const clock = new FakeClock();
  const project = new ProjectInFiles({ clock });
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const reopen = async (on: SimulatedDisk = disk) => {
    const store = await openDefinedStore(await project.open(on), clock);
    open.push(store);
    return store;
  };
  return { clock, project, disk, reopen, store: await reopen() };
}

const NONE = { kind: 'none' } as const;
const SCHEMA = { indexes: [], schema: { properties: { v: { type: 'number' } }, required: ['v'] } };
const TTL = { indexes: [], ttl: { field: 'until', seconds: 10 } };

describe('a definition', () => {
  it('is durable once answered, has the content of the last change, and changes only with its revision', async () => {
    const { disk, store, reopen } = await start();
    const first = await store.define('notes', SCHEMA, { kind: 'absent' });
    expect(first.created).toBe(true);
    await expect(store.define('notes', TTL, { kind: 'absent' })).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    const second = await store.define('notes', TTL, { kind: 'revision', anyOf: [String(first.rev)] });
    expect(second.created).toBe(false);
    const next = await reopen(disk.powerCut('synced only'));
    expect(next.definition('notes')).toMatchObject({ definition: TTL, rev: second.rev });
    await next.define('notes', undefined, { kind: 'revision', anyOf: [String(second.rev)] });
    expect(next.definition('notes')).toBeUndefined();
    await expect(next.define('notes', undefined, NONE)).rejects.toMatchObject({
      code: 'collection_not_found',
    });
  });

  it('is enforced after others have displaced it, because memory for compiled schemas is bounded', async () => {
    const { store } = await start();
    const large = (n: number) => ({
      indexes: [],
      schema: { properties: { v: { enum: [n, 'x'.repeat(60_000)] } } },
    });
    const names = Array.from({ length: 40 }, (_, n) => `c${n}`);
    for (const [n, name] of names.entries()) await store.define(name, large(n), NONE);
    const write = (n: number, v: number) =>
      commitOne(store, { ...put('a', `{"v":${v}}`), ref: { collection: `c${n}`, id: 'a' } });
    const grown: number[] = [];
    for (const n of names.keys()) {
      const before = store.memoryBytes;
      await write(n, n);
      grown.push(store.memoryBytes - before);
    }
    expect(grown[0]).toBeGreaterThan(60_000);
    expect(Math.max(...grown.slice(20))).toBeLessThan(60_000);
    await expect(write(0, 1)).rejects.toMatchObject({ code: 'schema_violation' });
  });

  it('returns its first answer to a repetition under its idempotency key, and keeps later changes', async () => {
    const { store } = await start();
    const keyed = (key: string) => ({ idempotency: { key: key.repeat(32), request: key.repeat(32) } });
    const first = await store.define('notes', SCHEMA, { kind: 'absent' }, keyed('a'));
    expect(await store.define('notes', SCHEMA, { kind: 'absent' }, keyed('a'))).toEqual(first);
    const revision = { kind: 'revision', anyOf: [String(first.rev)] } as const;
    const second = await store.define('notes', TTL, revision, keyed('b'));
    expect(await store.define('notes', SCHEMA, { kind: 'absent' }, keyed('a'))).toEqual(first);
    expect(store.definition('notes')).toMatchObject({ definition: TTL, rev: second.rev });
    const last = { kind: 'revision', anyOf: [String(second.rev)] } as const;
    await store.define('notes', undefined, last, keyed('c'));
    await store.define('notes', undefined, last, keyed('c'));
    expect(store.definition('notes')).toBeUndefined();
    expect(await store.define('notes', TTL, revision, keyed('b'))).toEqual(second);
    expect(store.definition('notes')).toBeUndefined();
    const third = await store.define('notes', SCHEMA, NONE);
    await store.define('notes', undefined, last, keyed('c'));
    expect(store.definition('notes')).toMatchObject({ definition: SCHEMA, rev: third.rev });
  });

  it('lets other requests run between the checks of a batch', async () => {
    const { store } = await start();
    // 90 looks at each of 3,000 values take longer than one turn on any machine.
    const schema = {
      properties: { n: { allOf: Array.from({ length: 90 }, () => ({ items: { type: 'number' } })) } },
    };
    await store.define('notes', { indexes: [], schema }, NONE);
    const documents = 5;
    const text = `{"n":[${Array.from({ length: 3_000 }, (_, n) => n).join()}]}`;
    let turns = 0;
    let isDone = false;
    const count = () => {
      turns++;
      if (!isDone) setImmediate(count);
    };
    setImmediate(count);
    const batch = Array.from({ length: documents }, (_, n) => put(`d${n}`, text));
    batch.push(put('last', '{"n":[""]}'));
    await expect(store.commit(batch)).rejects.toMatchObject({ code: 'schema_violation' });
    isDone = true;
    expect(turns).toBeGreaterThanOrEqual(documents);
  });

  it('survives a checkpoint, and a key rotation with its re-sealing', async () => {
    const { project, store, reopen, disk } = await start();
    const { rev } = await store.define('notes', SCHEMA, NONE);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    open.pop();
    project.rotate();
    const rotated = await reopen(disk);
    expect(rotated.pendingReencryption).toBe(1);
    await rotated.reseal(10);
    await rotated.checkpoint();
    await rotated[Symbol.asyncDispose]();
    open.pop();
    project.forgetFormerVersions();
    expect((await reopen(disk)).definition('notes')).toMatchObject({ definition: SCHEMA, rev });
  });

  it('is visible neither as a document, a collection nor a change, and shortens no page of changes', async () => {
    const { store } = await start();
    await commitOne(store, put('a', '{"v":1}'));
    await store.define('notes', SCHEMA, NONE);
    await commitOne(store, put('b', '{"v":1}'));
    await store.define('x', TTL, NONE);
    await store.define('x', undefined, NONE);
    await commitOne(store, put('c', '{"v":1}'));
    expect((await store.collections()).map(({ name }) => name)).toEqual(['notes']);
    const { changes, position } = await store.changes(0, 3);
    expect(changes.map(({ ref: { id } }) => id)).toEqual(['a', 'b', 'c']);
    expect((await store.changes(position, 3)).changes).toEqual([]);
    expect(position).toBe(await store.position());
  });

  it('of an earlier build is read without members of its indexes that are gone', async () => {
    const { disk, store, reopen } = await start();
    const index = { fields: ['g'], unique: false };
    await store.define('notes', { indexes: [{ ...index, blind: true } as typeof index] }, NONE);
    const next = await reopen(disk.powerCut('synced only'));
    expect(next.definition('notes')?.definition).toEqual({ indexes: [index] });
  });

  it('takes effect when another process has written it to the same storage', async () => {
    const { project, clock, disk, store } = await start();
    await store[Symbol.asyncDispose]();
    open.pop();
    const inner = await project.open(disk);
    const [one, other] = [await openDefinedStore(inner, clock), await openDefinedStore(inner, clock)];
    await one.define('notes', SCHEMA, NONE);
    await one.define('x', TTL, NONE);
    await other.load();
    expect(other.defined).toEqual(['notes', 'x']);
    await one.define('notes', TTL, NONE);
    await one.define('x', undefined, NONE);
    await other.load();
    expect([other.defined, other.definition('notes')?.definition]).toEqual([['notes'], TTL]);
  });

  it('fails only its own collection when it is undecryptable, until it is replaced', async () => {
    const { project, store, disk, reopen } = await start();
    await store.define('notes', SCHEMA, NONE);
    await commitOne(store, { ...put('a', '{}'), ref: ref('a', 'other') });
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    open.pop();
    const name = project.cipher.fileName({ collection: DEFINITIONS, id: 'notes' });
    const file = disk.files().get(`/p/docs/${name}`);
    if (file === undefined) throw new Error('the definition has no file');
    file[20] = (file[20] as number) ^ 1;
    const next = await reopen();
    const damaged = { code: 'integrity_error' };
    await expect(commitOne(next, put('a', '{}'))).rejects.toMatchObject(damaged);
    await expect(async () => next.get(ref('a'))).rejects.toMatchObject(damaged);
    expect(await next.get(ref('a', 'other'))).toBeDefined();
    await next.load();
    await expect(commitOne(next, put('a', '{}'))).rejects.toMatchObject(damaged);
    await expect(commitOne(next, remove('a'))).rejects.toMatchObject(damaged);
    await next.define('notes', SCHEMA, NONE);
    await commitOne(next, put('a', '{"v":1}'));
  });
});

describe('the estimated memory of an open project', () => {
  it('grows and shrinks with documents, definitions, indexes, compiled schemas and idempotency keys', async () => {
    const { store } = await start();
    const indexed = { indexes: [{ fields: ['v'], unique: false }] };
    const grown = async (action: () => Promise<unknown>) => {
      const before = store.memoryBytes;
      await action();
      return store.memoryBytes - before;
    };
    const documents = Array.from({ length: 100 }, (_, n) => put(`document-${n}`, `{"v":${n}}`));
    expect(await grown(() => store.commit(documents))).toBeGreaterThan(100 * 165);
    const defined = () => store.define('notes', indexed, { kind: 'none' }).then(() => store.indexes?.built());
    const byIndex = await grown(defined);
    expect(byIndex).toBeGreaterThan(100 * 100);
    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
    expect(await grown(() => store.commit([put('more', '{}')], { idempotency }))).toBeGreaterThan(465);
    const schema = { properties: { text: { maxLength: 10 } } };
    await store.define('other', { indexes: [], schema }, { kind: 'none' });
    const first = { ...put('a', '{}'), ref: ref('a', 'other') };
    expect(await grown(() => commitOne(store, first))).toBeGreaterThan(40 * JSON.stringify(schema).length);
    expect(await grown(() => store.define('notes', undefined, { kind: 'none' }))).toBeLessThan(-byIndex / 2);
  });
});

describe('a schema', () => {
  it('refuses invalid documents, even in a batch, and then nothing is written', async () => {
    const { store } = await start();
    await store.define('notes', SCHEMA, NONE);
    await commitOne(store, put('a', '{"v":1}'));
    const refused = { code: 'schema_violation', errors: [{ path: '/v', message: expect.any(String) }] };
    await expect(store.commit([put('b', '{"v":2}'), put('a', '{"v":"x"}')])).rejects.toMatchObject(refused);
    expect(await store.get(ref('b'))).toBeUndefined();
    expect((await store.get(ref('a')))?.text.toString()).toContain('"v":1');
    await commitOne(store, remove('a'));
  });

  it('decodes escaped names', async () => {
    const { store } = await start();
    await store.define('notes', SCHEMA, NONE);
    await commitOne(store, put('a', '{"\\u0076":1}'));
    await expect(commitOne(store, put('b', '{"\\u0077":1}'))).rejects.toMatchObject({
      code: 'schema_violation',
    });
  });
});

describe('an expired document', () => {
  const until = (s: number) => new Date(s * 1_000).toISOString();

  it('is immediately absent for every read and for preconditions', async () => {
    const { clock, store } = await start();
    await store.define('notes', TTL, NONE);
    const nowS = Math.floor(clock.now() / 1_000);
    for (const id of ['a', 'b', 'c'])
      await commitOne(store, put(id, `{"until":"${until(nowS + (id === 'b' ? 100 : 0))}"}`));
    await commitOne(store, put('d', '{"until":"tomorrow"}'));
    clock.advance(9_999);
    expect(await store.get(ref('a'))).toBeDefined();
    clock.advance(1_001);
    expect(await store.get(ref('a'))).toBeUndefined();
    expect(store.getSync(ref('a'))).toBeUndefined();
    const page = await store.list({ collection: 'notes', after: 0, limit: 1, bytesMax: 1_000_000 });
    expect(page.documents.map(({ metadata }) => metadata._id)).toEqual(['b']);
    const rest = await store.list({
      collection: 'notes',
      after: Number(page.next),
      limit: 10,
      bytesMax: 1_000_000,
    });
    expect(rest.documents.map(({ metadata }) => metadata._id)).toEqual(['d']);
    expect((await commitOne(store, put('a', '{}', { kind: 'absent' }))).created).toBe(true);
    await expect(commitOne(store, remove('c', { kind: 'present' }))).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    await expect(commitOne(store, remove('c'))).rejects.toMatchObject({ code: 'document_not_found' });
  });

  it('is removed for good, with a tombstone, unless it has changed', async () => {
    const { clock, store } = await start();
    await store.define('notes', TTL, NONE);
    const nowS = Math.floor(clock.now() / 1_000);
    for (let n = 0; n < 300; n++)
      await commitOne(store, put(`d${n}`, n % 2 === 0 ? `{"until":"${until(nowS)}"}` : '{}'));
    expect(await store.expired.sweepRound()).toBe(0);
    clock.advance(10_000);
    let removed = 0;
    for (let turn = 0; turn < 4; turn++) removed += await store.expired.sweepRound();
    expect(removed).toBe(150);
    expect((await store.collections())[0]?.documents).toBe(150);
    expect((await store.changes(0, 1_000)).changes.filter(({ deleted }) => deleted)).toHaveLength(150);
  });

  it('frees its values in unique indexes when it is removed', async () => {
    const { clock, store } = await start();
    const indexes = [{ fields: ['slot'], unique: true }];
    await store.define('notes', { ...TTL, indexes }, NONE);
    const nowS = Math.floor(clock.now() / 1_000);
    await commitOne(store, put('a', `{"slot":1,"until":"${until(nowS)}"}`));
    clock.advance(10_000);
    expect(await store.get(ref('a'))).toBeUndefined();
    await expect(commitOne(store, put('b', '{"slot":1}'))).rejects.toMatchObject({
      code: 'unique_violation',
    });
    expect(await store.expired.sweepRound()).toBe(1);
    await commitOne(store, put('b', '{"slot":1}'));
  });
});

describe('a list with mostly expired documents', () => {
  it('ends after a bounded number of them, and continues with the living ones', async () => {
    const { clock, store } = await start();
    await store.define('notes', TTL, NONE);
    const until = new Date(clock.now()).toISOString();
    for (let n = 0; n <= SKIPPED_MAX; n += 1_000)
      await store.commit(Array.from({ length: 1_000 }, (_, k) => put(`d${n + k}`, `{"until":"${until}"}`)));
    await commitOne(store, put('living', '{}'));
    clock.advance(10_001);
    for (const limit of [1_000, 10]) {
      const query = { collection: 'notes', limit, bytesMax: 1_000_000 };
      const first = await store.list({ ...query, after: 0 });
      expect(first.documents).toEqual([]);
      expect(first.next).toBeGreaterThan(0);
      const found: string[] = [];
      for (let after = first.next; after !== undefined; ) {
        const page = await store.list({ ...query, after });
        found.push(...page.documents.map(({ metadata }) => metadata._id));
        after = page.next;
      }
      expect(found).toEqual(['living']);
    }
  });
});
