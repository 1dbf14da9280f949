import { parseJsonObject } from '@bundoc/shared/json/parse';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import { cursorsOf } from '../crypto/sealed-cursor.ts';
import { readPatch } from '../documents/patch/read-patch.ts';
import { SCAN_LIMITS } from '../queries/scan-budget.ts';
import { whereSchema } from '../queries/where.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { SlowSteps } from '../testing/slow-steps.ts';
import { put, ref, remove } from '../testing/writes.ts';
import { readValue } from '../values/value.ts';
import { ownWork } from '../work/scheduler.ts';
import { ENOUGH, type QueryWriteLimits } from './find-matches.ts';
import { type QueryWriteAnswer, type QueryWriteRequest, QueryWrites } from './query-writes.ts';

afterEach(() => void vi.restoreAllMocks());

const work = ownWork('p')('batch');
const RAISE = '{"$inc":{"n":1}}';

function request(where: string, update?: string, over: Partial<QueryWriteRequest> = {}): QueryWriteRequest {
  return {
    project: 'p',
    collection: 'notes',
    where: whereSchema.parse(readValue(where)),
    whereText: where,
    patch:
      update === undefined ? undefined : readPatch('update', Buffer.from(update), 1_000_000, 'body.update'),
    patchText: update ?? '',
    limit: 500,
    cursor: undefined,
    isDryRun: false,
    ...over,
  };
}

async function start(limits: Partial<QueryWriteLimits> = {}) {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const files = await project.open(disk);
  const store = await openDefinedStore(files, project.clock);
  const lease = {
    store,
    cursors: cursorsOf('p', project.cipher),
    isUsable: () => true,
    [Symbol.dispose]: () => undefined,
  };
  const writes = new QueryWrites(
    { acquire: async () => lease },
    { documentBytesMax: 1_000_000, scan: SCAN_LIMITS, enough: ENOUGH, ...limits },
  );
  const fill = (count: number, contentOf = (n: number) => `{"n":0,"at":${n}}`) =>
    store.commit(Array.from({ length: count }, (_, n) => put(`d${n}`, contentOf(n))));
  const damage = async (id: string) => {
    await files.checkpoint();
    disk.tamper(`/p/docs/${project.cipher.fileName({ collection: 'notes', id })}`, Buffer.from('x'));
  };
  return { store, writes, fill, damage };
}

/** All answers of one pass. */
async function all(writes: QueryWrites, asked: QueryWriteRequest, keyed?: (n: number) => string) {
  const answers: QueryWriteAnswer[] = [];
  let cursor: string | undefined;
  do {
    const n = answers.length;
    const idempotency = keyed && { key: keyed(n).padStart(32, '0'), request: `${n}`.padStart(32, 'f') };
    const answer = await writes.run({ ...asked, cursor }, { work, ...(idempotency && { idempotency }) });
    answers.push(answer);
    cursor = answer.next;
  } while (cursor !== undefined);
  return { answers, written: answers.reduce((sum, { written }) => sum + written, 0) };
}

async function value(store: DefinedStore, id: string): Promise<Record<string, unknown> | undefined> {
  const document = await store.get(ref(id));
  return document && (parseJsonObject(document.text).value as Record<string, unknown>);
}

/** Runs `change` right before the first commit of a pass, behind its search. */
function beforeCommit(store: DefinedStore, change: () => Promise<unknown>) {
  const { commit } = store;
  return vi.spyOn(store, 'commit').mockImplementationOnce(async (planned, options) => {
    await change();
    return commit.call(store, planned, options);
  });
}

describe('a pass by query', () => {
  it('changes each document once in the order of creation, although all still match', async () => {
    const { store, writes, fill } = await start();
    await fill(25);
    const { answers, written } = await all(writes, request('{}', RAISE, { limit: 10 }));
    expect(answers.map(({ matched }) => matched)).toEqual([10, 10, 5]);
    expect(written).toBe(25);
    for (let n = 0; n < 25; n++) expect(await value(store, `d${n}`)).toMatchObject({ n: 1 });
  });

  it('leaves documents alone that are created after its beginning, and so ends', async () => {
    const { store, writes, fill } = await start();
    await fill(4);
    const first = await writes.run(request('{}', RAISE, { limit: 2 }), { work });
    await store.commit([put('late', '{"n":0}')]);
    let { next } = first;
    let matched = first.matched;
    while (next !== undefined) {
      const answer = await writes.run(request('{}', RAISE, { limit: 2, cursor: next }), { work });
      matched += answer.matched;
      next = answer.next;
    }
    expect(matched).toBe(4);
    expect(await value(store, 'late')).toMatchObject({ n: 0 });
  });

  it('deletes what matches, and nothing else', async () => {
    const { store, writes, fill } = await start();
    await fill(20);
    const { written } = await all(writes, request('{"at":{"$lt":15}}', undefined, { limit: 6 }));
    expect(written).toBe(15);
    expect(await store.collections()).toMatchObject([{ documents: 5 }]);
  });

  it('takes an index whose fields the condition fixes, and still follows the order of creation', async () => {
    const { store, writes, fill } = await start();
    await fill(60, (n) => `{"n":0,"kind":"${n % 3}"}`);
    await store.define(
      'notes',
      { indexes: [{ name: 'kind', fields: ['kind'], unique: false }] },
      { kind: 'none' },
    );
    await vi.waitFor(() => expect(store.indexes?.status('notes')).toMatchObject([{ state: 'ready' }]));
    const moving = request('{"kind":"1"}', '{"$inc":{"n":1},"$set":{"kind":"2"}}', { limit: 7 });
    const { answers, written } = await all(writes, moving);
    expect([written, answers.length]).toEqual([20, 3]);
    expect((await all(writes, request('{"kind":"2"}', RAISE, { limit: 7 }))).written).toBe(40);
    const found = await Promise.all(Array.from({ length: 60 }, (_, n) => value(store, `d${n}`)));
    expect(found.map((one) => one?.['n'])).toEqual(found.map((_, n) => [0, 2, 1][n % 3]));
  });

  it('reads few entries of an index in another order, and the collection if they are many', async () => {
    const { store, writes } = await start({ enough: { ...ENOUGH, documentsMax: 500 } });
    for (let first = 0; first < 6_000; first += 500)
      await store.commit(
        Array.from({ length: 500 }, (_, n) => put(`d${first + n}`, `{"n":0,"at":${(first + n) % 3_000}}`)),
      );
    await store.define(
      'notes',
      { indexes: [{ name: 'at', fields: ['at'], unique: false }] },
      { kind: 'none' },
    );
    await vi.waitFor(() => expect(store.indexes?.status('notes')).toMatchObject([{ state: 'ready' }]));
    const few = await all(writes, request('{"at":{"$lt":100}}', '{"$inc":{"n":1,"at":1}}', { limit: 30 }));
    expect(few.answers.map(({ matched }) => matched)).toEqual([30, 30, 30, 30, 30, 30, 20]);
    expect([await value(store, 'd99'), await value(store, 'd3000')]).toMatchObject([
      { n: 1, at: 100 },
      { n: 1, at: 1 },
    ]);
    const many = await all(writes, request('{"at":{"$gte":100}}', RAISE));
    expect(many.written).toBe(5_802);
    expect(many.answers.length).toBeGreaterThan(11);
    expect((await all(writes, request('{"at":{"$gte":2900}}'))).answers.length).toBe(1);
  });

  it('ends an answer early that has read enough, also without a match, and misses nothing', async () => {
    const { writes, fill } = await start({ enough: { ...ENOUGH, documentsMax: 150 } });
    await fill(1_000);
    const { answers, written } = await all(writes, request('{"at":{"$gte":990}}', RAISE));
    expect(answers.length).toBeGreaterThan(4);
    expect(answers[0]).toMatchObject({ matched: 0, written: 0 });
    expect(written).toBe(10);
  });

  it('reads a collection of any size, beyond what one query may read', async () => {
    const limits = { scan: { ...SCAN_LIMITS, documentsMax: 400 }, enough: { ...ENOUGH, documentsMax: 100 } };
    const { writes, fill } = await start(limits);
    await fill(1_000);
    expect((await all(writes, request('{"at":{"$gte":990}}'))).written).toBe(10);
  });

  it('passes any number of expired documents, which it leaves alone', async () => {
    const { store, writes } = await start({ enough: { ...ENOUGH, documentsMax: 4_000 } });
    await store.define('notes', { indexes: [], ttl: { field: 'at', seconds: 0 } }, { kind: 'none' });
    for (let first = 0; first < 12_000; first += 1_000)
      await store.commit(
        Array.from({ length: 1_000 }, (_, n) => put(`d${first + n}`, '{"at":"1970-01-01T00:00:00Z"}')),
      );
    await store.commit([put('alive', '{"n":0}')]);
    const { answers, written } = await all(writes, request('{}', RAISE));
    expect(written).toBe(1);
    expect(answers.length).toBeGreaterThan(1);
  });

  it('halves a commit that would have too many entries in indexes', async () => {
    const { store, writes } = await start();
    await store.define('notes', { indexes: [{ name: 'l', fields: ['l'], unique: false }] }, { kind: 'none' });
    const list = Array.from({ length: 200 }, (_, n) => n).join();
    for (let first = 0; first < 400; first += 100)
      await store.commit(
        Array.from({ length: 100 }, (_, n) => put(`d${first + n}`, `{"n":0,"l":[${list}]}`)),
      );
    const { answers, written } = await all(writes, request('{}', RAISE));
    expect(written).toBe(400);
    expect(answers.length).toBeGreaterThan(1);
  });

  it('applies a large update to each document', async () => {
    const { store, writes, fill } = await start();
    await fill(5);
    const text = 'x'.repeat(200_000);
    const update = `{"$set":{"x":"${text}"},"$inc":{"n":1}}`;
    const bytes = Buffer.from(update);
    const patch = { kind: 'large', of: 'update', bytes, part: 'body.update' } as const;
    expect(await writes.run(request('{}', update, { patch }), { work })).toMatchObject({ written: 5 });
    expect(await value(store, 'd4')).toMatchObject({ n: 1, x: text });
  });

  it('lists documents that do not open, and leaves them alone', async () => {
    const { writes, fill, damage } = await start();
    await fill(3);
    await damage('d1');
    const answer = await writes.run(request('{}', RAISE), { work });
    expect(answer).toMatchObject({ matched: 2, written: 2, unreadable: ['d1'] });
  });

  it('holds bounded memory: large documents end an answer', async () => {
    const { writes, store } = await start();
    for (let n = 0; n < 30; n++) await store.commit([put(`d${n}`, `{"n":0,"x":"${'x'.repeat(900_000)}"}`)]);
    const steps = new SlowSteps();
    using slow = steps.work('batch');
    const answer = await writes.run(request('{}', RAISE), { work: slow });
    expect(answer.matched).toBe(10);
    expect(steps.memory.most).toBeLessThan(20_000_000);
    const growing = `{"$set":{"y":"${'y'.repeat(99_000)}"}}`;
    await store.commit(Array.from({ length: 400 }, (_, n) => put(`s${n}`, '{"s":1}')));
    const { answers, written } = await all(writes, request('{"s":1}', growing));
    expect([written, answers[0]?.matched]).toEqual([400, 169]);
  });

  it('in a dry run writes nothing, and says what it would, and what does not fit', async () => {
    const { store, writes, fill } = await start();
    await fill(30);
    const before = await store.position();
    const dry = await writes.run(request('{}', RAISE, { isDryRun: true }), {
      work,
      idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) },
    });
    expect(dry).toMatchObject({ matched: 30, written: 30, next: undefined });
    expect(dry.ids).toEqual(Array.from({ length: 20 }, (_, n) => `d${n}`));
    await store.commit([put('text', '{"n":"x"}')]);
    await expect(writes.run(request('{}', RAISE, { isDryRun: true }), { work })).rejects.toMatchObject({
      code: 'patch_inapplicable',
    });
    expect(await store.position()).toBe(before + 1);
  });

  it('takes a cursor only of the same condition, update, collection and kind', async () => {
    const { writes, fill } = await start();
    await fill(3);
    const { next } = await writes.run(request('{}', RAISE, { limit: 1, isDryRun: true }), { work });
    const others = [
      request('{"n":0}', RAISE, { isDryRun: true }),
      request('{}', '{"$inc":{"n":2}}', { isDryRun: true }),
      request('{}', undefined, { isDryRun: true }),
      request('{}', RAISE),
      request('{}', RAISE, { isDryRun: true, collection: 'other' }),
    ];
    for (const other of others)
      await expect(writes.run({ ...other, cursor: next }, { work })).rejects.toMatchObject({
        code: 'invalid_cursor',
      });
    const same = request('{}', RAISE, { limit: 2, isDryRun: true, cursor: next });
    expect(await writes.run(same, { work })).toMatchObject({ matched: 2 });
  });
});

describe('a document that changes between its match and its write', () => {
  it('is left alone if it no longer matches, or is gone', async () => {
    const { store, writes, fill } = await start();
    await fill(5);
    beforeCommit(store, () => store.commit([put('d1', '{"n":7}'), remove('d3')]));
    const answer = await writes.run(request('{"n":0}', RAISE), { work });
    expect(answer).toMatchObject({ matched: 5, written: 3 });
    expect(await value(store, 'd1')).toMatchObject({ n: 7 });
    expect(await value(store, 'd3')).toBeUndefined();
    beforeCommit(store, () => store.commit([put('d2', '{"n":9}')]));
    expect(await writes.run(request('{"n":1}'), { work })).toMatchObject({ matched: 3, written: 2 });
    expect(await value(store, 'd2')).toMatchObject({ n: 9 });
  });

  it('is changed at its latest revision if it still matches', async () => {
    const { store, writes, fill } = await start();
    await fill(3);
    beforeCommit(store, () => store.commit([put('d1', '{"n":0,"other":"kept"}')]));
    expect(await writes.run(request('{"n":0}', RAISE), { work })).toMatchObject({ written: 3 });
    expect(await value(store, 'd1')).toMatchObject({ n: 1, other: 'kept' });
  });

  it('refuses nothing that only its former revision would have', async () => {
    const { store, writes } = await start();
    await store.commit([put('a', '{"t":1,"n":"text"}'), put('b', '{"t":1,"n":0}')]);
    const { get } = store;
    vi.spyOn(store, 'get').mockImplementationOnce(async (one) => {
      await store.commit([put('a', '{"t":2,"n":"text"}')]);
      return await get.call(store, one);
    });
    expect(await writes.run(request('{"t":1}', RAISE), { work })).toMatchObject({ matched: 2, written: 1 });
    expect(await value(store, 'a')).toMatchObject({ n: 'text' });
  });

  it('does not stop the others: with each further attempt an answer has fewer documents', async () => {
    const { store, writes, fill } = await start();
    await fill(100);
    const { commit } = store;
    let changes = 0;
    vi.spyOn(store, 'commit').mockImplementation(async (planned, options) => {
      if (planned.length > 20) await commit.call(store, [put('d0', `{"n":0,"c":${changes++}}`)]);
      return commit.call(store, planned, options);
    });
    const { answers, written } = await all(writes, request('{}', RAISE));
    expect(written).toBe(100);
    expect(answers.map(({ matched }) => matched)).toEqual([13, 87]);
  });

  it('ends the request with 503 if it changes all the time, and nothing of the answer is written', async () => {
    const { store, writes, fill } = await start();
    await fill(2);
    const { commit } = store;
    let changes = 0;
    vi.spyOn(store, 'commit').mockImplementation(async (planned, options) => {
      await commit.call(store, [put('d0', `{"n":0,"c":${changes++}}`)]);
      return commit.call(store, planned, options);
    });
    await expect(writes.run(request('{}', RAISE), { work })).rejects.toMatchObject({ code: 'overloaded' });
    expect(changes).toBe(16);
    expect(await value(store, 'd1')).toMatchObject({ n: 0 });
  });
});

describe('a refused answer', () => {
  it('writes nothing, names the document, and leaves earlier answers', async () => {
    const { store, writes, fill } = await start();
    await fill(4, (n) => (n === 3 ? '{"n":"text"}' : '{"n":0}'));
    const first = await writes.run(request('{}', RAISE, { limit: 2 }), { work });
    const second = request('{}', RAISE, { limit: 2, cursor: first.next });
    await expect(writes.run(second, { work })).rejects.toMatchObject({
      code: 'patch_inapplicable',
      detail: 'the document "d3"',
      errors: [{ path: 'body.update.$inc.n', message: expect.any(String) }],
    });
    for (const [id, n] of [
      ['d0', 1],
      ['d1', 1],
      ['d2', 0],
    ] as const)
      expect(await value(store, id)).toMatchObject({ n });
  });

  it('names the document that violates a schema, or a unique index', async () => {
    const { store, writes, fill } = await start();
    await fill(3);
    const schema = { properties: { n: { maximum: 5 } } };
    const indexes = [{ name: 'at', fields: ['at'], unique: true }];
    await store.define('notes', { indexes, schema }, { kind: 'none' });
    await vi.waitFor(() => expect(store.indexes?.status('notes')).toMatchObject([{ state: 'ready' }]));
    const refused = (update: string) => writes.run(request('{}', update), { work });
    await expect(refused('{"$set":{"n":6}}')).rejects.toMatchObject({
      code: 'schema_violation',
      detail: 'the document "d0"',
    });
    await expect(refused('{"$set":{"at":9}}')).rejects.toMatchObject({
      code: 'unique_violation',
      detail: expect.stringContaining('the document "d1"'),
    });
    expect(await value(store, 'd0')).toMatchObject({ n: 0, at: 0 });
  });
});

describe('a pass with keys', () => {
  const keyed = (n: number) => `ab${n}`;

  it('happens once, however often it is repeated, and gives the first answers', async () => {
    const { store, writes, fill } = await start();
    await fill(25);
    const asked = request('{}', RAISE, { limit: 10 });
    const first = await all(writes, asked, keyed);
    await store.commit([put('new', '{"n":0}')]);
    expect(await all(writes, asked, keyed)).toEqual(first);
    for (let n = 0; n < 25; n++) expect(await value(store, `d${n}`)).toMatchObject({ n: 1 });
  });

  it('continues after a crash between any two answers, and changes no document twice', async () => {
    const { store, writes, fill } = await start({ enough: { ...ENOUGH, documentsMax: 4 } });
    await fill(20, (n) => `{"n":0,"even":${n % 2 === 0}}`);
    // Others change meanwhile what a search from the start would find.
    const asked = request('{"even":true}', '{"$inc":{"n":1}}', { limit: 3 });
    let cursor: string | undefined;
    for (let n = 0; n < 3; n++) {
      const idempotency = { key: keyed(n).padStart(32, '0'), request: `${n}`.padStart(32, 'f') };
      cursor = (await writes.run({ ...asked, cursor }, { work, idempotency })).next;
    }
    await store.commit([put('d1', '{"n":0,"even":true}'), remove('d0')]);
    await all(writes, asked, keyed);
    for (let n = 2; n < 20; n += 2) expect(await value(store, `d${n}`)).toMatchObject({ n: 1 });
  });

  it('keeps an answer without a write, so that its cursor stays the same', async () => {
    const { writes, fill } = await start({ enough: { ...ENOUGH, documentsMax: 100 } });
    await fill(300);
    const asked = request('{"at":{"$gte":250}}', RAISE);
    const first = await all(writes, asked, keyed);
    expect(first.answers[0]).toMatchObject({ matched: 0 });
    expect(await all(writes, asked, keyed)).toEqual(first);
  });

  it('refuses a key that another request had, and repeats nothing that was refused', async () => {
    const { store, writes } = await start();
    await store.commit([put('a', '{"n":"text"}')]);
    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
    await expect(writes.run(request('{}', RAISE), { work, idempotency })).rejects.toMatchObject({
      code: 'patch_inapplicable',
    });
    await store.commit([put('a', '{"n":1}')]);
    expect(await writes.run(request('{}', RAISE), { work, idempotency })).toMatchObject({ written: 1 });
    const other = { ...idempotency, request: 'c'.repeat(32) };
    await expect(writes.run(request('{}', RAISE), { work, idempotency: other })).rejects.toMatchObject({
      code: 'idempotency_mismatch',
    });
    expect(await value(store, 'a')).toMatchObject({ n: 2 });
  });

  it('of two requests at once, one writes and both get its answer', async () => {
    const { store, writes, fill } = await start();
    await fill(10);
    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
    // What the first has written does not fit the update of the second.
    const asked = request('{"n":0}', '{"$set":{"n":"text"},"$inc":{"at":1}}');
    const [one, two] = await Promise.all([
      writes.run(asked, { work: ownWork('p')('batch'), idempotency }),
      writes.run(asked, { work: ownWork('p')('batch'), idempotency }),
    ]);
    expect(one).toEqual(two);
    expect(await value(store, 'd1')).toMatchObject({ n: 'text', at: 2 });
  });
});
