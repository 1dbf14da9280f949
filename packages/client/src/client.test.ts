import { describe, expect, it } from 'vitest';
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
    await expect(project.batch([{ op: 'replace', collection: 'c' }])).rejects.toThrow(TypeError);
  });
});
