import { Bundoc } from '@bundoc/client';
import { BUNDOC_CODES } from '@bundoc/client/codes';
import type { CollectionDefinition, IndexDefinition } from '@bundoc/client/definition';
import { JsonText } from '@bundoc/client/document';
import type { Explanation, Where } from '@bundoc/client/query';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let bundoc: Bundoc;
let api: OpenapiReader;
/** Every request that the client has sent, as `METHOD /path`. */
const sent = new Set<string>();
beforeAll(async () => {
  installation = await Installation.start();
  const token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  api = new OpenapiReader((await call(installation.url, '/openapi.json')).json());
  // The port changes with a restart.
  bundoc = new Bundoc({
    url: 'http://bundoc.test',
    token,
    fetch: (url, init) => {
      sent.add(`${init?.method} ${new URL(String(url)).pathname}`);
      return fetch(String(url).replace('http://bundoc.test', installation.url), init);
    },
  });
});
afterAll(() => installation[Symbol.asyncDispose]());

interface Note {
  readonly n?: number;
  readonly title?: string;
}
async function collect<T>(all: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const one of all) collected.push(one);
  return collected;
}

const notes = (project: string) => bundoc.project(project).collection<Note>('notes');

/** A client that loses some answers, although all its requests arrive. */
const unluckyClient = (token: string, isLost: () => boolean) =>
  new Bundoc({
    url: installation.url,
    token,
    pause: async () => undefined,
    fetch: async (url, init) => {
      const answer = await fetch(url, init);
      if (isLost()) throw new TypeError('the answer was lost');
      return answer;
    },
  });

describe('the client', () => {
  it('writes, reads and deletes, and returns undefined for a missing document', async () => {
    const collection = notes('crud');
    expect(await collection.get('a')).toBeUndefined();
    const made = await collection.create({ title: 'one' });
    const read = await collection.get(made._id);
    expect(read?.value).toEqual({ ...made, title: 'one' });
    const next = await collection.put(made._id, { title: 'two' }, { ifMatch: made._rev });
    expect(next._rev).not.toBe(made._rev);
    await collection.delete(made._id, { ifMatch: next._rev });
    expect(await collection.get(made._id)).toBeUndefined();
  });

  it('keeps the exact text in both directions', async () => {
    const text = '{ "n": 12345678901234567890, "b":1.10, "a":"é" }';
    await notes('exact').put('a', new JsonText(text));
    const read = await notes('exact').get('a');
    expect(read?.text.endsWith(text.slice(1))).toBe(true);
    for await (const listed of notes('exact').list()) expect(listed.text).toBe(read?.text);
  });

  it('patches a document', async () => {
    const collection = notes('patch');
    const { _rev } = await collection.put('a', { n: 1, title: 'one' });
    await collection.patch('a', { title: null }, { ifMatch: _rev });
    await collection.patch('a', [{ op: 'replace', path: '/n', value: 2 }]);
    expect((await collection.get('a'))?.value).toMatchObject({ n: 2 });
    expect((await collection.get('a'))?.value.title).toBeUndefined();
  });

  it('updates a document by operators, in a batch as well, and takes exact ones as text', async () => {
    const collection = notes('update');
    const { _rev } = await collection.put('a', new JsonText('{"n":1.10,"title":"one"}'));
    await collection.update('a', { $inc: { n: 0.1 }, $set: { title: 'two' } }, { ifMatch: _rev });
    expect((await collection.get('a'))?.text).toContain(',"n":1.20,"title":"two"}');
    await collection.update('a', new JsonText('{"$max":{"n":12345678901234567890.10}}'));
    await bundoc.project('update').batch([
      {
        op: 'patch',
        collection: 'notes',
        id: 'a',
        update: { $unset: { title: '' }, $push: { tags: 'x' } },
      },
    ]);
    expect((await collection.get('a'))?.text).toContain(',"n":12345678901234567890.10,"tags":["x"]}');
    await bundoc
      .project('update')
      .batch([{ op: 'patch', collection: 'notes', id: 'a', patch: new JsonText('{"n":1.10,"$inc":0}') }]);
    expect((await collection.get('a'))?.text).toContain(',"n":1.10,"tags":["x"],"$inc":0}');
    await expect(collection.update('a', { $inc: { tags: 1 } })).rejects.toMatchObject({
      code: 'patch_inapplicable',
      errors: [{ path: 'body.$inc.tags', message: 'the present value is an array, not a number' }],
    });
    // @ts-expect-error: there is no such operator.
    await expect(collection.update('a', { $incr: { n: 1 } })).rejects.toMatchObject({
      code: 'invalid_patch',
    });
    // @ts-expect-error: a title is a text.
    await collection.update('a', { $set: { title: 1 } });
  });

  it('accepts any valid id', async () => {
    const collection = notes('ids');
    for (const id of ['a b', 'é/ü'.replace('/', '-'), '%2F', '...', '?x#y', '+']) {
      await collection.put(id, { title: id });
      expect((await collection.get(id))?.id).toBe(id);
    }
    for (const id of ['', '.', '..']) await expect(collection.get(id)).rejects.toThrow(TypeError);
  });

  it('distinguishes refusals by their code', async () => {
    const collection = notes('refused');
    await collection.put('a', {});
    await expect(collection.put('a', {}, { ifNoneMatch: '*' })).rejects.toMatchObject({
      code: 'precondition_failed',
      status: 412,
    });
    const rev = String((await collection.get('a'))?.rev);
    await expect(collection.put('a', {}, { ifMatch: '0'.repeat(24) })).rejects.toMatchObject({
      code: 'precondition_failed',
      currentRev: rev,
    });
    await expect(collection.patch('none', {}, { ifMatch: rev })).rejects.toMatchObject({
      code: 'precondition_failed',
      currentRev: undefined,
    });
    await expect(collection.create(new JsonText('{"_id":"a"}'))).rejects.toMatchObject({
      code: 'document_exists',
      status: 409,
    });
    await expect(collection.create(new JsonText('{'))).rejects.toMatchObject({ code: 'invalid_json' });
    await expect(bundoc.project('p').changesPage({ waitS: 51 })).rejects.toMatchObject({
      errors: [{ path: 'query.wait' }],
    });
  });

  it('applies a write once although its answer was lost', async () => {
    const token = await installation.client();
    let lost = 0;
    const unlucky = unluckyClient(token, () => lost++ === 0);
    const made = await unlucky.project('once').collection('notes').create({ v: 1 });
    const all = await collect(bundoc.project('once').collection('notes').list());
    expect(all.map(({ id }) => id)).toEqual([made._id]);
    expect(lost).toBe(2);
  });

  it('changes a definition once although its answer was lost, even with a required revision', async () => {
    const token = await installation.client(['once'], ['docs:admin']);
    let tries = 0;
    const unlucky = unluckyClient(token, () => tries++ % 2 === 0);
    const collection = unlucky.project('once').collection('defined');
    const rev = async () => (await bundoc.project('once').collection('defined').info())?.rev;
    const made = await collection.define({ ttl: { field: 'until' } }, { ifNoneMatch: '*' });
    expect(await rev()).toBe(made.rev);
    const changed = await collection.define({ schema: {} }, { ifMatch: String(made.rev) });
    expect(await rev()).toBe(changed.rev);
    await collection.undefine({ ifMatch: String(changed.rev) });
    expect(await rev()).toBeUndefined();
    expect(tries).toBe(6);
  });

  it('lists page by page, in the order of creation', async () => {
    const collection = notes('list');
    for (let n = 0; n < 7; n++) await collection.put(`d${n}`, { n });
    const all = await collect(collection.list({ pageSize: 3 }));
    expect(all.map(({ value }) => value.n)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const page = await collection.listPage({ pageSize: 3 });
    expect([page.documents.length, page.nextCursor !== undefined]).toEqual([3, true]);
  });

  it('gives at most `limit` documents and projects, in pages of at most `pageSize`', async () => {
    const collection = notes('limited');
    for (let n = 0; n < 7; n++) await collection.put(`d${n}`, { n });
    for (const [limit, pageSize] of [
      [5, undefined],
      [5, 2],
      [5, 5],
      [7, 3],
      [9, 3],
      [0, undefined],
    ] as const) {
      const wanted = Array.from({ length: Math.min(limit, 7) }, (_, n) => n);
      const listed = await collect(collection.list({ limit, pageSize }));
      expect(listed.map(({ value }) => value.n)).toEqual(wanted);
      const found = await collect(collection.query({ orderBy: [{ field: 'n' }], limit, pageSize }));
      expect(found.map(({ value }) => value.n)).toEqual(wanted);
    }
    await notes('limited-b').put('a', {});
    expect(await collect(bundoc.projects({ limit: 1 }))).toHaveLength(1);
    for (const limit of [-1, 1.5, Number.NaN])
      await expect(collect(collection.query({ limit }))).rejects.toThrow(RangeError);
  });

  it('finds, counts and sums documents, and explains how', async () => {
    const collection = bundoc.project('query').collection<{ n: number; kind: string }>('things');
    for (let n = 0; n < 9; n++) await collection.put(`d${n}`, { n, kind: n % 2 === 0 ? 'even' : 'odd' });
    const where = { kind: 'odd' };
    const found = await collect(
      collection.query({ where, orderBy: [{ field: 'n', direction: 'desc' }], pageSize: 3 }),
    );
    expect(found.map(({ value }) => value.n)).toEqual([7, 5, 3, 1]);
    expect(await collection.count(where)).toBe(4);
    const groups = await collection.aggregate({
      groupBy: ['kind'],
      figures: { many: { op: 'count' }, total: { op: 'sum', field: 'n' } },
    });
    const totals = new Map(
      groups.map(({ group, figures }) => [group['kind'], [figures.many, figures.total]]),
    );
    expect([totals.get('even'), totals.get('odd')]).toEqual([
      [5, 20],
      [4, 16],
    ]);
    await collection.put('large', new JsonText('{"n":12345678901234567891,"kind":"large"}'));
    const [large] = await collection.aggregate({
      where: { kind: 'large' },
      figures: { total: { op: 'sum', field: 'n' } },
    });
    expect(large?.figures.total).toBe(12345678901234567000);
    expect(large?.text).toBe('{"group":{},"figures":{"total":12345678901234567891}}');
    const [some, ...none] = await collection.aggregate({
      groupBy: ['kind'],
      figures: {
        different: { op: 'countDistinct', field: 'n' },
        all: { op: 'distinct', field: 'n' },
        median: { op: 'percentile', field: 'n', percent: 50 },
      },
      having: new JsonText('{"all":{"$size":5}}'),
    });
    expect([some?.figures, none]).toEqual([{ different: 5, all: [0, 2, 4, 6, 8], median: 4 }, []]);
    const { explain } = await collection.queryPage({ where, explain: true });
    expect(explain?.documents_matched).toBe(4);
    await expect(collection.count({ n: { $regex: 'x' } })).rejects.toMatchObject({ code: 'invalid_request' });
  });

  it('reads the feed with documents to its end', async () => {
    const project = bundoc.project('feed');
    for (let n = 0; n < 3; n++) await project.collection('notes').put(`d${n}`, { n });
    await project.collection('notes').delete('d1');
    const changes = await collect(project.changes<Note>({ until: 'end', documents: true }));
    expect(changes.map(({ id, deleted, document }) => [id, deleted, document?.value.n])).toEqual([
      ['d0', false, 0],
      ['d2', false, 2],
      ['d1', true, undefined],
    ]);
  });

  it.each(['stream', 'poll'] as const)(
    'follows the feed by %s across a restart, and misses nothing',
    async (until) => {
      const project = bundoc.project(`follow-${until}`);
      const collection = project.collection('notes');
      await collection.put('d0', {});
      const stop = new AbortController();
      const following = project.changes({ until, signal: stop.signal });
      const seen: string[] = [];
      const done = startInBackground(
        (async () => {
          for await (const { id } of following) {
            seen.push(id);
            if (id === 'd3') break;
          }
        })(),
      );
      await expect.poll(() => seen).toEqual(['d0']);
      await collection.put('d1', {});
      await expect.poll(() => seen).toEqual(['d0', 'd1']);
      await installation.stopBundoc();
      await installation.startBundoc();
      await collection.put('d2', {});
      await collection.put('d3', {});
      await done;
      expect([...new Set(seen)]).toEqual(['d0', 'd1', 'd2', 'd3']);
    },
  );

  it('ends a feed with the reason of the signal', async () => {
    const project = bundoc.project('stop');
    await project.collection('notes').put('a', {});
    const stop = new AbortController();
    const reason = new Error('enough');
    const following = (async () => {
      for await (const _change of project.changes({ signal: stop.signal })) stop.abort(reason);
    })();
    await expect(following).rejects.toBe(reason);
  });

  it('throws at once for a feed that cannot be read', async () => {
    const next = bundoc.project('never-made').changes()[Symbol.asyncIterator]().next();
    await expect(next).rejects.toMatchObject({ code: 'project_not_found' });
  });

  it('defines collections, waits until their indexes are built, and removes definitions', async () => {
    const project = bundoc.project('defined');
    const collection = project.collection<Note>('notes');
    expect(await collection.info()).toBeUndefined();
    for (let n = 0; n < 5; n++) await collection.put(`d${n}`, { n });
    expect(await collection.info()).toMatchObject({ documents: 5, rev: undefined, indexes: [] });
    const checks = await collect(
      collection.checkSchema({ properties: { n: { maximum: 3 } } }, { pageSize: 2 }),
    );
    expect(checks.map(({ checked, failing }) => [checked, failing])).toEqual([
      [2, 0],
      [2, 0],
      [1, 1],
    ]);
    const failure = { id: 'd4', errors: [{ path: '/n', message: 'must be <= 3' }] };
    expect(checks.at(-1)).toEqual({
      checked: 1,
      failing: 1,
      failures: [failure],
      unreadable: [],
      nextCursor: undefined,
    });
    const second = collection.checkSchema(
      { properties: { n: { maximum: 3 } } },
      { cursor: checks[0]?.nextCursor },
    );
    expect(await collect(second)).toMatchObject([{ checked: 3, failing: 1 }]);
    const made = await collection.define(
      {
        indexes: [{ fields: ['n'] }],
        schema: { properties: { n: { maximum: 3 } } },
        ttl: { field: 'until' },
      },
      { ifNoneMatch: '*' },
    );
    expect(made).toMatchObject({
      existing: { checked: 5, failing: 1, complete: true },
      ttl: { field: 'until', seconds: 0 },
    });
    await expect(collection.define({}, { ifNoneMatch: '*' })).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    await expect(collection.put('x', { n: 4 })).rejects.toMatchObject({ code: 'schema_violation' });
    const looks = await collect(collection.indexProgress());
    expect(looks.at(-1)).toMatchObject([{ name: 'n', fields: ['n'], unique: false }]);
    expect(['ready', 'none']).toContain(looks.at(-1)?.[0]?.state);
    expect(await project.collections()).toMatchObject([{ name: 'notes', documents: 5, defined: true }]);
    const { rev = '' } = (await collection.info()) ?? {};
    expect(rev).toBe(made.rev);
    await expect(collection.undefine({ ifMatch: '0'.repeat(24) })).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    await collection.undefine({ ifMatch: rev });
    await collection.undefine();
    await expect(collection.undefine({ ifMatch: rev })).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    expect(await collect(collection.indexProgress())).toEqual([]);
    expect(await project.collections()).toMatchObject([{ defined: false }]);
  });

  it('deletes a collection in slices, and counts its documents', async () => {
    const collection = bundoc.project('dropped').collection<Note>('notes');
    await collection.define({ indexes: [{ fields: ['n'] }] });
    for (let start = 0; start < 700; start += 100)
      await bundoc.project('dropped').batch(
        Array.from({ length: 100 }, (_, n) => ({
          op: 'create' as const,
          collection: 'notes',
          id: `d${start + n}`,
          document: { n },
        })),
      );
    const counts: number[] = [];
    expect(await collection.drop({ onDeleted: (count) => counts.push(count) })).toBe(700);
    expect(counts.at(-1)).toBe(700);
    expect(counts.length).toBeGreaterThan(1);
    expect(await collection.info()).toBeUndefined();
    expect(await collection.drop()).toBe(0);
  });

  it('updates and deletes by query in slices, once under a key, and counts them', async () => {
    const collection = bundoc.project('by-query').collection<Note>('notes');
    for (let n = 0; n < 30; n++) await collection.put(`d${n}`, { n });
    const counts: number[] = [];
    const options = {
      pageSize: 12,
      idempotencyKey: 'raise',
      onWritten: (count: number) => counts.push(count),
    };
    const raise = () => collection.updateWhere({ n: { $gte: 5 } }, { $inc: { seen: 1 } }, options);
    const changed = { matched: 25, written: 25, unreadable: [], ids: [] };
    expect(await raise()).toEqual(changed);
    expect(counts).toEqual([12, 24, 25]);
    await collection.put('late', { n: 9 });
    expect(await raise()).toEqual(changed);
    expect(await collection.count({ seen: 1 })).toBe(25);
    const exact = new JsonText('{"n":{"$lt":10.0}}');
    const found = await collection.deleteWhere(exact, { dryRun: true, pageSize: 4 });
    expect(found).toMatchObject({
      matched: 11,
      written: 11,
      ids: [...Array(10).keys()].map((n) => `d${n}`).concat('late'),
    });
    expect(await collection.count()).toBe(31);
    expect(await collection.deleteWhere(exact)).toMatchObject({ written: 11, ids: [] });
    expect(await collection.count()).toBe(20);
  });

  it('refuses to write by query without a condition, or with one that would mean more', async () => {
    const collection = bundoc.project('by-query').collection('notes');
    const wrong: readonly (readonly [unknown, string])[] = [
      [undefined, '{} means every document'],
      [null, '{} means every document'],
      [[], '{} means every document'],
      [{ owner: undefined }, 'owner'],
      [{ where: { n: 1 } }, 'give the condition itself'],
    ];
    for (const [where, message] of wrong) {
      await expect(collection.deleteWhere(where as Where)).rejects.toThrow(message);
      await expect(collection.updateWhere(where as Where, { $inc: { n: 1 } })).rejects.toThrow(message);
    }
    await expect(collection.deleteWhere({}, { pageSize: 501 })).rejects.toThrow('from 1 to 500');
    await expect(collection.deleteWhere({}, { idempotencyKey: 'k'.repeat(241) })).rejects.toThrow('240');
    await expect(collection.deleteWhere({}, { dry_run: true } as object)).rejects.toThrow(
      'did you mean dryRun?',
    );
    await expect(collection.updateWhere({}, [] as object)).rejects.toThrow('object of operators');
    expect(await collection.count()).toBe(20);
  });

  it('returns selected fields of documents, and their number', async () => {
    const collection = notes('fields');
    for (let n = 0; n < 3; n++) await collection.put(`d${n}`, { n, title: 'long' });
    const page = await collection.listPage({ pageSize: 2, fields: ['n'], total: true });
    expect([page.total, page.documents[1]?.value.n, page.documents[1]?.value.title]).toEqual([
      3,
      1,
      undefined,
    ]);
    const all = await collect(collection.list({ pageSize: 2, fields: ['n'] }));
    expect(all.map(({ value }) => [value.n, value.title])).toEqual([0, 1, 2].map((n) => [n, undefined]));
    const [found] = await collect(collection.query({ where: { n: 2 }, fields: ['title'] }));
    expect([found?.value.n, found?.value.title]).toEqual([undefined, 'long']);
  });

  it('explains every kind of query', async () => {
    const collection = notes('explained');
    for (let n = 0; n < 3; n++) await collection.put(`d${n}`, { n });
    const explained: Explanation[] = [];
    const onExplained = (explanation: Explanation) => void explained.push(explanation);
    await collect(collection.query({ where: { n: { $gte: 1 } }, pageSize: 1 }, { onExplained }));
    // The first page reads three documents: one more than it gives, to know whether more follow.
    expect(explained.map((one) => one.documents_scanned)).toEqual([3, 4]);
    expect(explained.at(-1)).toMatchObject({ index: null, order: 'creation', documents_matched: 3 });
    expect(await collection.count({ n: 0 }, { onExplained })).toBe(1);
    await collection.aggregate({ figures: { all: { op: 'count' } } }, { onExplained });
    expect(explained.length).toBeGreaterThanOrEqual(4);
    expect(explained.at(-1)).toMatchObject({ index: null, documents_scanned: 3, documents_matched: 3 });
  });

  it('lists projects, describes one, and deletes it', async () => {
    for (const id of ['ended-a', 'ended-b']) await notes(id).put('a', {});
    const ids = await collect(bundoc.projects({ pageSize: 1 }));
    expect(ids).toEqual(expect.arrayContaining(['ended-a', 'ended-b']));
    expect(ids).toEqual([...new Set(ids)].sort());
    const project = bundoc.project('ended-a');
    expect(await project.info()).toMatchObject({ project: 'ended-a', documents: 1, key: { version: 1 } });
    expect(await bundoc.project('never-made').info()).toBeUndefined();
    const deleted = await bundoc.deleteProject('ended-a');
    expect(deleted).toMatchObject({ project: 'ended-a', key: { name: 'ended-a-dek' } });
    expect(await bundoc.deleteProject('ended-a')).toEqual(deleted);
    await expect(project.info()).rejects.toMatchObject({ code: 'project_destroyed', status: 410 });
    await expect(bundoc.deleteProject('never-made')).rejects.toMatchObject({ code: 'project_not_found' });
  });

  it('backs a project up', async () => {
    const project = bundoc.project('kept');
    await project.collection('notes').put('a', {});
    const bytes = await new Response(await project.backup()).arrayBuffer();
    expect(bytes.byteLength).toBeGreaterThan(100);
  });

  it('gives the reason when the service is not configured to move projects', async () => {
    await notes('stays').put('a', {});
    const refused = { code: 'move_refused', status: 409 };
    await expect(bundoc.project('stays').move()).rejects.toMatchObject(refused);
  });

  it('reports every failed precondition of a batch, with the current revision', async () => {
    const { _rev } = await notes('refused-batch').put('a', {});
    const batch = bundoc
      .project('refused-batch')
      .batch([{ op: 'put', collection: 'notes', id: 'a', document: {}, ifNoneMatch: '*' }]);
    await expect(batch).rejects.toMatchObject({
      code: 'precondition_failed',
      errors: [{ etag: `"${_rev}"` }],
    });
  });

  it('reaches every operation of the API except HEAD and those for operators', () => {
    const templates = api.operations.map(({ operationId, method, path }) => ({
      operationId,
      pattern: new RegExp(`^${method} ${path.replace(/\{[^}]+\}/g, '[^/]+')}$`),
    }));
    const reached = templates.filter(({ pattern }) => [...sent].some((one) => pattern.test(one)));
    const others = templates.filter((one) => !reached.includes(one)).map(({ operationId }) => operationId);
    expect(others.sort()).toEqual([
      'health',
      'metrics',
      'readDocumentHead',
      'readOpenapi',
      'readService',
      'ready',
    ]);
  });

  it('knows every error code of Bundoc', () => {
    const { schemas } = api.document['components'] as { schemas: Record<string, unknown> };
    // Each problem has its own schema, whose code is a constant.
    const documented = [
      ...JSON.stringify(schemas).matchAll(/"code":\{(?:"type":"string",)?"const":"(\w+)"/g),
    ];
    // These answer paths and methods that are not an operation, and requests that no operation receives.
    const ofNone = [
      'method_not_allowed',
      'not_found',
      'transfer_coding_unsupported',
      'http_version_unsupported',
    ];
    expect([...BUNDOC_CODES].sort()).toEqual(
      [...new Set([...documented.map(([, code]) => code), ...ofNone])].sort(),
    );
  });

  it('knows every member of a definition', () => {
    const definition = { indexes: true, schema: true, ttl: true } as const;
    const index = { name: true, fields: true, unique: true } as const;
    definition satisfies Record<keyof CollectionDefinition, true>;
    index satisfies Record<keyof IndexDefinition, true>;
    const path = '/v1/projects/{project}/collections/{collection}';
    const put = api.operations.find((one) => one.method === 'PUT' && one.path === path);
    type Schema = {
      readonly $ref?: string;
      readonly items?: Schema;
      readonly properties?: Readonly<Record<string, Schema>>;
    };
    const { schemas } = api.document['components'] as { schemas: Record<string, Schema> };
    const resolved = (schema: Schema | undefined): Schema | undefined =>
      schema?.$ref === undefined ? schema : schemas[schema.$ref.split('/').at(-1) ?? ''];
    const schema = resolved(put?.requestBody?.content['application/json']?.schema as Schema);
    const indexSchema = resolved(resolved(schema?.properties?.['indexes'])?.items);
    const namesOf = (members: object | undefined) => Object.keys(members ?? {}).sort();
    expect(namesOf(schema?.properties)).toEqual(namesOf(definition));
    expect(namesOf(indexSchema?.properties)).toEqual(namesOf(index));
  });
});
