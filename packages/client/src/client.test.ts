import { describe, expect, it } from 'vitest';
import type { BatchOperation } from './batch.ts';
import { Bundoc } from './client.ts';

const METADATA = {
  _id: 'a',
  _collection: 'c',
  _rev: '000000000000000000000001',
  _created: '2026-01-31T12:00:00.000Z',
  _updated: '2026-01-31T12:00:00.000Z',
};
/** Has the members of every answer. */
const ANSWER = JSON.stringify({
  ...METADATA,
  project: 'p',
  projects: [],
  collections: [],
  results: [],
  documents: [],
  changes: [],
  last_seq: 0,
  count: 1,
  definition: {},
  explain: {},
});

describe('a call that is sent as a whole is repeated after a passing refusal, and a write has the same key:', () => {
  const project = (client: Bundoc) => client.project('p');
  const collection = (client: Bundoc) => project(client).collection('c');
  const KEYED = /\.(?:batch|create|put|patch|delete|define|undefine)$/;
  it.each<[string, (client: Bundoc) => Promise<unknown>]>([
    ['deleteProject', (client) => client.deleteProject('p')],
    ['projectsPage', (client) => client.projectsPage()],
    ['project.info', (client) => project(client).info()],
    ['project.collections', (client) => project(client).collections()],
    ['project.batch', (client) => project(client).batch([])],
    ['project.changesPage', (client) => project(client).changesPage()],
    ['collection.create', (client) => collection(client).create({})],
    ['collection.get', (client) => collection(client).get('a')],
    ['collection.put', (client) => collection(client).put('a', {})],
    ['collection.patch', (client) => collection(client).patch('a', {})],
    ['collection.delete', (client) => collection(client).delete('a')],
    ['collection.listPage', (client) => collection(client).listPage()],
    ['collection.queryPage', (client) => collection(client).queryPage()],
    ['collection.count', (client) => collection(client).count()],
    ['collection.aggregate', (client) => collection(client).aggregate({ figures: { n: { op: 'count' } } })],
    ['collection.checkSchema', (client) => collection(client).checkSchema({}).next()],
    ['collection.info', (client) => collection(client).info()],
    ['collection.define', (client) => collection(client).define({})],
    ['collection.undefine', (client) => collection(client).undefine()],
  ])('%s', async (name, call) => {
    const seen: { target: string; key: string | null }[] = [];
    const client = new Bundoc({
      url: 'http://127.0.0.1:8080',
      token: 'token',
      pause: async () => undefined,
      fetch: async (url, { method, headers } = {}) => {
        seen.push({ target: `${method} ${url}`, key: new Headers(headers).get('idempotency-key') });
        if (seen.length === 1) return Response.json({ code: 'overloaded', title: 'x' }, { status: 503 });
        return new Response(ANSWER, { headers: { 'content-type': 'application/json' } });
      },
    });
    await call(client);
    expect(seen).toEqual([seen[0], seen[0]]);
    expect(seen[0]?.key === null).toBe(!KEYED.test(name));
  });
});

describe('a value that JSON does not have', () => {
  const bodies: string[] = [];
  const project = new Bundoc({
    url: 'http://127.0.0.1:8080',
    token: 'token',
    fetch: async (_url, { body } = {}) => {
      bodies.push(String(body));
      return new Response(ANSWER, { headers: { 'content-type': 'application/json' } });
    },
  }).project('p');
  const notes = project.collection('notes');

  it.each<[string, () => Promise<unknown>, string]>([
    [
      'a query',
      () => notes.query({ where: { owner: undefined } }).next(),
      'where: owner: JSON has no undefined',
    ],
    ['a count', () => notes.count({ $or: [{ owner: undefined }] }), 'where: owner: JSON has no undefined'],
    ['an operator', () => notes.count({ owner: { $eq: undefined } }), 'where: $eq: JSON has no undefined'],
    ['a condition with NaN', () => notes.count({ n: Number.NaN }), 'where: n: JSON has no NaN'],
    ['a merge patch', () => notes.patch('a', { total: Number.NaN }), 'patch: total: JSON has no NaN'],
    [
      'a JSON Patch',
      () => notes.patch('a', [{ op: 'replace', path: '/total', value: Number.POSITIVE_INFINITY }]),
      'patch: value: JSON has no Infinity',
    ],
    [
      'a batch',
      () => project.batch([{ op: 'patch', collection: 'notes', id: 'a', patch: { n: Number.NaN } }]),
      'operations[0].patch: n: JSON has no NaN',
    ],
    ['an update', () => notes.update('a', { $inc: { n: Number.NaN } }), 'update: n: JSON has no NaN'],
    [
      'the condition of an update',
      () => notes.update('a', { $pull: { owners: { id: undefined } } }),
      'update: id: JSON has no undefined',
    ],
    [
      'an update that is a list',
      () => notes.update('a', [] as object),
      'update: must be an object of operators, such as { $inc: { stars: 1 } }',
    ],
    [
      'an update in a batch',
      () =>
        project.batch([{ op: 'patch', collection: 'notes', id: 'a', update: { $inc: { n: Number.NaN } } }]),
      'operations[0].update: n: JSON has no NaN',
    ],
    [
      'a patch with an operator',
      () => notes.patch('a', { $inc: { n: 1 } }),
      'patch.$inc: is an operator of an update, not of a patch; for a member of this name, send a JsonText',
    ],
    [
      'a patch with an operator in a batch',
      () => project.batch([{ op: 'patch', collection: 'notes', id: 'a', patch: { $inc: { n: 1 } } }]),
      'operations[0].patch.$inc: is an operator of an update, not of a patch; for a member of this name, send a JsonText',
    ],
    [
      'an update beside a patch in a batch',
      () =>
        project.batch([
          { op: 'patch', collection: 'notes', id: 'a', update: {}, patch: {} } as unknown as BatchOperation,
        ]),
      'operations[0].patch: unknown; known are op, collection, id, update, ifMatch',
    ],
    ['a document', () => notes.put('a', { m: new Map([[1, 2]]) }), 'document: m: JSON has no Map'],
    [
      'a BigInt',
      () => notes.put('a', { n: 5n }),
      'document: n: JSON has no BigInt; write its digits as a JsonText',
    ],
    ['a missing id', () => notes.get(undefined as unknown as string), 'undefined is not a name or an id'],
  ])('is refused in %s, and nothing is sent', async (_what, call, message) => {
    bodies.length = 0;
    await expect((async () => await call())()).rejects.toThrow(new TypeError(message));
    expect(bodies).toEqual([]);
  });

  it('is left out of a document where it is undefined, as JSON.stringify does', async () => {
    bodies.length = 0;
    await notes.put('a', { a: 1, b: undefined });
    expect(bodies).toEqual(['{"a":1}']);
  });

  it('is sent as an entity tag where it is a revision, in a batch as in a single write', async () => {
    bodies.length = 0;
    for (const ifMatch of ['1f', '"1f"', '*'])
      await project.batch([{ op: 'delete', collection: 'c', id: 'a', ifMatch }]);
    expect(bodies.map((body) => JSON.parse(body).operations[0].if_match)).toEqual(['"1f"', '"1f"', '*']);
  });
});

describe('an option that the service would refuse or never see', () => {
  const client = new Bundoc({
    url: 'http://127.0.0.1:8080',
    token: 'token',
    fetch: () => Promise.reject(new Error('nothing may be sent')),
  });
  const project = client.project('p');
  const collection = project.collection('c');

  it.each<[string, (pageSize: number) => Promise<unknown>]>([
    ['projectsPage', (pageSize) => client.projectsPage({ pageSize })],
    ['projects', (pageSize) => client.projects({ pageSize, limit: 1 }).next()],
    ['changesPage', (pageSize) => project.changesPage({ pageSize })],
    ['listPage', (pageSize) => collection.listPage({ pageSize })],
    ['list', (pageSize) => collection.list({ pageSize }).next()],
    ['queryPage', (pageSize) => collection.queryPage({ pageSize })],
    ['query', (pageSize) => collection.query({ pageSize }).next()],
  ])('is refused by name before %s sends anything', async (_name, call) => {
    for (const pageSize of [5_000, 0, 1.5, Number.NaN])
      await expect(call(pageSize)).rejects.toThrow(
        new RangeError(`pageSize: ${pageSize} is not a whole number from 1 to 1000`),
      );
  });

  it('is refused by a check of a schema as well, which has larger pages', async () => {
    await expect(collection.checkSchema({}, { pageSize: 10_001 }).next()).rejects.toThrow(
      new RangeError('pageSize: 10001 is not a whole number from 1 to 10000'),
    );
  });

  it('is refused in a batch, by the compiler and at run time', async () => {
    // @ts-expect-error: a precondition is one of an operation.
    await expect(project.batch([], { ifMatch: '*' })).rejects.toThrow(
      new TypeError('options.ifMatch: unknown; known are idempotencyKey, signal, deadlineMs'),
    );
    const create = { op: 'create', collection: 'c', document: {} } as const;
    // @ts-expect-error: a document that is created has no revision.
    await expect(project.batch([create, { ...create, ifMatch: '*' }])).rejects.toThrow(
      new TypeError('operations[1].ifMatch: unknown; known are op, collection, id, document'),
    );
    // @ts-expect-error: there is no such operation.
    await expect(project.batch([{ op: 'upsert', collection: 'c' }])).rejects.toThrow(
      new TypeError('operations[0].op: upsert: unknown; known are put, create, patch, delete'),
    );
    // @ts-expect-error: nor one that every object has.
    await expect(project.batch([{ op: 'constructor' }])).rejects.toThrow(
      'operations[0].op: constructor: unknown',
    );
  });

  it.each([
    ['op', { collection: 'c', id: 'x', document: {} }],
    ['collection', { op: 'put', id: 'x', document: {} }],
    ['id', { op: 'put', collection: 'c', document: {} }],
    ['document', { op: 'create', collection: 'c' }],
    ['patch', { op: 'patch', collection: 'c', id: 'x' }],
    ['id', { op: 'delete', collection: 'c', id: undefined }],
  ])('is refused as much as a batch without the %s that an operation needs', async (name, operation) => {
    await expect(project.batch([operation as BatchOperation])).rejects.toThrow(
      new TypeError(`operations[0].${name}: is required`),
    );
  });

  /** As programs without types call it. */
  // biome-ignore lint/suspicious/noExplicitAny: any option can be given.
  type Untyped = any;
  const figures = { n: { op: 'count' } } as const;
  it.each<[string, (options: Untyped) => unknown]>([
    ['deleteProject', (options) => client.deleteProject('p', options)],
    ['projectsPage', (options) => client.projectsPage(options)],
    ['projects', (options) => client.projects(options).next()],
    ['project.info', (options) => project.info(options)],
    ['collections', (options) => project.collections(options)],
    ['backup', (options) => project.backup(options)],
    ['move', (options) => project.move(options)],
    ['changesPage', (options) => project.changesPage(options)],
    ['changes', (options) => project.changes(options)[Symbol.asyncIterator]().next()],
    ['create', (options) => collection.create({}, options)],
    ['get', (options) => collection.get('a', options)],
    ['put', (options) => collection.put('a', {}, options)],
    ['patch', (options) => collection.patch('a', {}, options)],
    ['update', (options) => collection.update('a', {}, options)],
    ['delete', (options) => collection.delete('a', options)],
    ['listPage', (options) => collection.listPage(options)],
    ['list', (options) => collection.list(options).next()],
    ['queryPage', (options) => collection.queryPage({}, options)],
    ['query', (options) => collection.query({}, options).next()],
    ['count', (options) => collection.count({}, options)],
    ['aggregate', (options) => collection.aggregate({ figures }, options)],
    ['info', (options) => collection.info(options)],
    ['define', (options) => collection.define({}, options)],
    ['checkSchema', (options) => collection.checkSchema({}, options).next()],
    ['undefine', (options) => collection.undefine(options)],
    ['indexProgress', (options) => collection.indexProgress(options).next()],
  ])('is refused before %s sends anything when it is a name that no call has', async (_name, call) => {
    await expect(call({ signal: undefined, deadlinems: 5 })).rejects.toThrow(
      /^options\.deadlinems( \(did you mean deadlineMs\?\))?: unknown; known are .*signal/,
    );
  });

  it.each<[string, string, () => Promise<unknown>]>([
    ['options.ifmatch', 'ifMatch', () => collection.put('a', {}, { ifmatch: '1' } as Untyped)],
    ['options.if_match', 'ifMatch', () => collection.delete('a', { if_match: '1' } as Untyped)],
    ['options.limit', 'pageSize', () => collection.listPage({ limit: 3, skip: 4 } as Untyped)],
    ['query.limit', 'pageSize', () => collection.queryPage({ limit: 5 } as Untyped)],
    ['query.order_by', 'orderBy', () => collection.query({ order_by: [] } as Untyped).next()],
    ['options.onExplain', 'onExplained', () => collection.query({}, { onExplain: 1 } as Untyped).next()],
    ['aggregation.group', 'groupBy', () => collection.aggregate({ figures, group: [] } as Untyped)],
  ])('is refused with the name that was meant: %s is %s', async (given, meant, call) => {
    await expect(call()).rejects.toThrow(`${given} (did you mean ${meant}?): unknown; known are `);
  });

  it('is refused in place of a question or condition, with the argument where it belongs', async () => {
    const onAsOf = () => undefined;
    await expect(collection.aggregate({ figures, onAsOf } as Untyped)).rejects.toThrow(
      new TypeError('aggregation.onAsOf: is an option: give it in the argument after the aggregation'),
    );
    await expect(collection.queryPage({ deadlineMs: 5 } as Untyped)).rejects.toThrow(
      new TypeError('query.deadlineMs: is an option: give it in the argument after the query'),
    );
    await expect(collection.count({ onAsOf } as Untyped)).rejects.toThrow(
      new TypeError('where: onAsOf: JSON has no function'),
    );
  });

  const missing: Untyped[] = [undefined, null, '', ' ', 7];
  it.each<[string, string, (value: Untyped) => unknown]>([
    ['options.ifMatch', 'a revision', (ifMatch) => collection.put('a', {}, { ifMatch })],
    ['options.ifMatch', 'a revision', (ifMatch) => collection.patch('a', {}, { ifMatch })],
    ['options.ifMatch', 'a revision', (ifMatch) => collection.delete('a', { ifMatch })],
    ['options.ifMatch', 'a revision', (ifMatch) => collection.define({}, { ifMatch })],
    ['options.ifMatch', 'a revision', (ifMatch) => collection.undefine({ ifMatch })],
    ['options.ifNoneMatch', '"*"', (ifNoneMatch) => collection.put('a', {}, { ifNoneMatch })],
    ['options.ifNoneMatch', '"*"', (ifNoneMatch) => collection.define({}, { ifNoneMatch })],
    [
      'operations[0].ifMatch',
      'a revision',
      (ifMatch) => project.batch([{ op: 'delete', collection: 'c', id: 'a', ifMatch }]),
    ],
  ])(
    'is refused as a condition without a value, which would change any revision: %s',
    async (place, wanted, call) => {
      for (const value of missing) {
        const told = typeof value === 'string' ? JSON.stringify(value) : String(value);
        await expect(call(value)).rejects.toThrow(
          new TypeError(`${place}: ${told} is not ${wanted}; leave it out to write without a condition`),
        );
      }
    },
  );

  it('is refused as ifNoneMatch unless it is "*"', async () => {
    const call = async () => collection.put('a', {}, { ifNoneMatch: 'abc' as '*' });
    await expect(call()).rejects.toThrow('options.ifNoneMatch: "abc" is not "*"');
  });

  it('is refused as a way to follow changes, as fields and as operations, where a program has no types', async () => {
    const follow = async () =>
      project
        .changes({ until: 'ever' as 'end' })
        [Symbol.asyncIterator]()
        .next();
    await expect(follow()).rejects.toThrow(
      new TypeError('options.until: "ever": unknown; known are stream, poll, end'),
    );
    await expect(collection.listPage({ fields: 'title' as Untyped })).rejects.toThrow(
      new TypeError('fields: "title" is not a list of paths, such as ["title"]'),
    );
    await expect(project.batch({} as Untyped)).rejects.toThrow(
      new TypeError('operations: must be a list of operations'),
    );
  });

  it('is refused by name as an option of the client, and so is a token of no text', () => {
    const url = 'http://127.0.0.1:8080';
    expect(() => new Bundoc({ url, tokn: 'a' } as Untyped)).toThrow(
      'options.tokn: unknown; known are url, token, ',
    );
    for (const [token, told] of [
      ['', '""'],
      [undefined, 'undefined'],
    ])
      expect(() => new Bundoc({ url, token } as Untyped)).toThrow(
        new TypeError(`options.token: ${told} is not a token`),
      );
  });

  it('is refused as a token with spaces, which is not quoted, and where an object is wanted', async () => {
    const url = 'http://127.0.0.1:8080';
    expect(() => new Bundoc({ url, token: 'Bearer a.b.c' })).toThrow(
      new TypeError('options.token: a token has no spaces; give it without "Bearer"'),
    );
    for (const [given, told] of [
      [undefined, 'undefined'],
      [url, JSON.stringify(url)],
    ])
      expect(() => new Bundoc(given as Untyped)).toThrow(
        `options: ${told} is not an object; known members are url,`,
      );
    await expect(collection.get('a', null as Untyped)).rejects.toThrow('options: null is not an object');
  });

  it('is refused as the condition of a count that has the form of a query, unless it has operators', async () => {
    for (const where of [{ where: { stars: 5 } }, { where: {} }, { where: { stars: 5 }, limit: 1 }])
      await expect(collection.count(where)).rejects.toThrow(
        'where: give the condition itself, such as { stars: 5 }; for a member named where, { where: { $eq: … } }',
      );
    const bodies: unknown[] = [];
    const asked = new Bundoc({
      url: 'http://127.0.0.1:8080',
      token: 'token',
      fetch: async (_url, { body } = {}) => {
        bodies.push(JSON.parse(String(body)));
        return new Response(ANSWER, { headers: { 'content-type': 'application/json' } });
      },
    });
    const conditions = [{ where: { $eq: { stars: 5 } } }, { where: 'here' }];
    for (const where of conditions) expect(await asked.project('p').collection('c').count(where)).toBe(1);
    expect(bodies).toMatchObject(conditions.map((where) => ({ where })));
  });

  it('is refused without a suggestion when no name is similar', async () => {
    await expect(collection.get('a', { asof: 1 } as Untyped)).rejects.toThrow(
      new TypeError('options.asof: unknown; known are signal, deadlineMs'),
    );
  });

  it('is refused as a limit that is no whole number from 0, and a text is shown in quotes', async () => {
    for (const [limit, told] of [
      [-1, '-1'],
      [1.5, '1.5'],
      ['5', '"5"'],
    ] as const)
      await expect(collection.list({ limit: limit as number }).next()).rejects.toThrow(
        new RangeError(`limit: ${told} is not a whole number from 0`),
      );
    await expect(collection.listPage({ pageSize: '5' as Untyped })).rejects.toThrow(
      new RangeError('pageSize: "5" is not a whole number from 1 to 1000'),
    );
  });
});
