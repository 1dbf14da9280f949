import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const base = (project: string, collection = 'notes') =>
  `/v1/projects/${project}/collections/${collection}/documents`;
const get = (path: string) => call(installation.url, path, { token });
const put = (path: string, body = '{}', headers: Record<string, string> = {}) =>
  call(installation.url, path, { method: 'PUT', token, body, headers });

interface ListPage {
  readonly as_of: number;
  readonly documents: { readonly _id: string }[];
  readonly next_cursor?: string;
}
interface ChangePage {
  readonly changes: {
    readonly _id: string;
    readonly _collection: string;
    readonly _rev: string;
    readonly deleted?: boolean;
  }[];
  readonly since: string;
}

describe('GET …/documents', () => {
  it('lists a collection in the order of creation, page by page, with the exact bytes of each document', async () => {
    for (const id of ['c', 'a', 'b']) await put(`${base('list')}/${id}`, `{ "n": 1.10, "id":"${id}" }`);
    const texts = await Promise.all(
      ['c', 'a', 'b'].map(async (id) => (await get(`${base('list')}/${id}`)).text),
    );
    const first = await get(`${base('list')}?limit=2`);
    expect(first.headers['content-type']).toBe('application/json; charset=utf-8');
    const { next_cursor: cursor, as_of: asOf } = first.json() as unknown as ListPage;
    expect(asOf).toBeGreaterThan(0);
    expect(first.text).toBe(
      `{"documents":[${texts[0]},${texts[1]}],"next_cursor":"${cursor}","as_of":${asOf}}`,
    );
    const second = await get(`${base('list')}?limit=2&cursor=${cursor}`);
    expect(second.text).toBe(`{"documents":[${texts[2]}],"as_of":${asOf}}`);
  });

  it('continues at the same position after a restart', async () => {
    for (const id of ['x', 'y', 'z']) await put(`${base('restart')}/${id}`);
    const { next_cursor: cursor } = (await get(`${base('restart')}?limit=1`)).json() as unknown as ListPage;
    await installation.stopBundoc();
    await installation.startBundoc();
    const page = (await get(`${base('restart')}?cursor=${cursor}`)).json() as unknown as ListPage;
    expect(page.documents.map(({ _id }) => _id)).toEqual(['y', 'z']);
  });

  it('is empty for a collection without documents, and 404 for a project that does not exist', async () => {
    expect((await get(base('list', 'nothing'))).text).toMatch(/^\{"documents":\[\],"as_of":\d+\}$/);
    expect((await get(base('never'))).json()['code']).toBe('project_not_found');
  });

  it.each([
    'limit=0',
    'limit=1001',
    'limit=x',
    'limit=-1',
    'cursor=',
    'skip=1',
    'fields=',
    'fields=a,,b',
    'fields=a..b',
    'fields=$where',
    'include=all',
    'limit=1&limit=2',
  ])('refuses %s', async (query) => {
    const answer = await get(`${base('list')}?${query}`);
    expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_request']);
  });
});

describe('fields of a list', () => {
  const list = async (query: string) =>
    (await get(`${base('chosen')}?${query}`)).text.replace(/,"as_of":\d+/, '');

  it('are returned as they were written, after the metadata, and all other members are left out', async () => {
    await put(
      `${base('chosen')}/a`,
      '{ "n": 1.10 ,"o":{ "x":[1e400 , {"y" : 2,"z":3}, [{"y":4}] ],"w":1}, "\\u006d":12345678901234567890, "q":1 }',
    );
    const whole = await list('');
    const head = whole.slice(0, whole.indexOf(', "n"'));
    expect(await list('fields=n,o.x.y,m')).toBe(
      `${head}, "n": 1.10 ,"o":{ "x":[ {"y" : 2}, [{"y":4}] ]}, "\\u006d":12345678901234567890}]}`,
    );
    expect(await list('fields=none')).toBe(`${head}}]}`);
    expect(await list('fields=n.inside')).toBe(`${head}}]}`);
    expect(await list('fields=o.w,o')).toBe(await list('fields=o'));
  });

  it('are bound to the cursor, as the collection is, and the limit is not', async () => {
    for (const id of ['a', 'b', 'c']) {
      await put(`${base('bound')}/${id}`, '{"v":1,"w":2}');
      await put(`${base('bound', 'other')}/${id}`, '{"v":1}');
      await put(`${base('elsewhere')}/${id}`, '{"v":1}');
    }
    const cursorOf = async (query: string) =>
      ((await get(`${base('bound')}?${query}`)).json() as unknown as ListPage).next_cursor ?? '';
    const plain = await cursorOf('limit=1');
    const chosen = await cursorOf('limit=1&fields=w,v');
    const ids = async (path: string) =>
      ((await get(path)).json() as unknown as ListPage).documents.map(({ _id }) => _id);
    expect(await ids(`${base('bound')}?limit=1&cursor=${plain}`)).toEqual(['b']);
    expect(await ids(`${base('bound')}?cursor=${chosen}&fields=v,w`)).toEqual(['b', 'c']);
    const forged = `${plain.slice(0, -2)}${plain.endsWith('AA') ? 'BB' : 'AA'}`;
    const old = Buffer.from('[1,"list",1,0]').toString('base64url');
    for (const path of [
      `${base('bound')}?cursor=${chosen}`,
      `${base('bound')}?cursor=${plain}&fields=v`,
      `${base('bound', 'other')}?cursor=${plain}`,
      `${base('elsewhere')}?cursor=${plain}`,
      `${base('bound')}?cursor=${forged}`,
      `${base('bound')}?cursor=${plain}A`,
      `${base('bound')}?cursor=${old}`,
      `${base('bound')}?cursor=x`,
    ]) {
      const answer = await get(path);
      expect([path, answer.status, answer.json()['code']]).toEqual([path, 400, 'invalid_cursor']);
    }
  });
});

describe('include=total', () => {
  it('counts the documents of the collection without deleted ones', async () => {
    for (const id of ['a', 'b', 'c']) await put(`${base('counted')}/${id}`);
    await call(installation.url, `${base('counted')}/b`, { method: 'DELETE', token });
    const page = (await get(`${base('counted')}?include=total&limit=1`)).json();
    expect([page['total'], (page['documents'] as unknown[]).length]).toEqual([2, 1]);
    const none = await get(`${base('counted', 'none')}?include=total`);
    expect(none.text).toMatch(/^\{"documents":\[\],"total":0,"as_of":\d+\}$/);
    expect((await get(base('counted'))).json()['total']).toBeUndefined();
  });
});

describe('GET …/changes', () => {
  it('lists each document once, at its last change, with deletions, and misses nothing after a position', async () => {
    for (const id of ['a', 'b', 'c']) await put(`${base('feed')}/${id}`);
    await put(`${base('feed')}/a`, '{"again":true}');
    await call(installation.url, `${base('feed')}/b`, { method: 'DELETE', token });
    const changes = (await get('/v1/projects/feed/changes')).json() as unknown as ChangePage;
    expect(changes.changes.map(({ _id, deleted }) => [_id, deleted])).toEqual([
      ['c', undefined],
      ['a', undefined],
      ['b', true],
    ]);
    expect(changes.changes[1]?._rev).toBe((await get(`${base('feed')}/a`)).json()['_rev']);
    const none = (
      await get(`/v1/projects/feed/changes?since=${changes.since}`)
    ).json() as unknown as ChangePage;
    expect(none).toEqual({ changes: [], since: changes.since });
    await put(`${base('feed', 'other')}/d`);
    const more = (
      await get(`/v1/projects/feed/changes?since=${none.since}&limit=1`)
    ).json() as unknown as ChangePage;
    expect(more.changes.map(({ _collection, _id }) => [_collection, _id])).toEqual([['other', 'd']]);
  });

  it('refuses a cursor of a list, and a forged position', async () => {
    for (const id of ['a', 'b']) await put(`${base('mixed')}/${id}`);
    const { next_cursor: cursor } = (await get(`${base('mixed')}?limit=1`)).json() as unknown as ListPage;
    for (const since of [cursor, '1', 'x']) {
      expect((await get(`/v1/projects/mixed/changes?since=${since}`)).json()['code']).toBe('invalid_request');
    }
  });
});

describe('Idempotency-Key', () => {
  const post = (body: string, key: string, who = token) =>
    call(installation.url, base('once'), {
      method: 'POST',
      token: who,
      body,
      headers: { 'idempotency-key': key },
    });

  it('gives a repeated POST the first answer, and creates one document', async () => {
    const first = await post('{"v":1}', 'key-1');
    const again = await post('{"v":1}', 'key-1');
    expect([again.status, again.text, again.headers['location']]).toEqual([
      201,
      first.text,
      first.headers['location'],
    ]);
    const page = (await get(base('once'))).json() as unknown as ListPage;
    expect(page.documents).toHaveLength(1);
  });

  it('survives a restart', async () => {
    const first = await post('{"v":"restart"}', 'key-restart');
    await installation.stopBundoc();
    await installation.startBundoc();
    expect((await post('{"v":"restart"}', 'key-restart')).text).toBe(first.text);
  });

  it('used for a different request is 422, and used by another subject is a different key', async () => {
    await post('{"v":2}', 'key-2');
    const other = await post('{"v":3}', 'key-2');
    expect([other.status, other.json()['code']]).toEqual([422, 'idempotency_mismatch']);
    const somebody = await installation.issue({
      sub: 'somebody',
      typ: 'client',
      scope: ['docs:write'],
      projects: ['*'],
    });
    expect((await post('{"v":3}', 'key-2', somebody)).status).toBe(201);
  });

  it('an Idempotency-Key of a tenant is separate from those of others, whatever subjects it issues tokens for', async () => {
    const tenant = async () => {
      const may_issue = { scopes: ['docs:write' as const], projects: ['once'], keys: [], ttl_s: 600 };
      const grant = { typ: 'service' as const, scope: ['kms:issue_client' as const], may_issue };
      const backend = await installation.issue({ sub: 'shop', ...grant });
      return async (sub: string) => {
        const issued = await call(installation.kms.apiUrl, '/v1/tokens', {
          method: 'POST',
          token: backend,
          body: JSON.stringify({ sub, typ: 'client', scope: ['docs:write'], projects: ['once'] }),
        });
        return String(issued.json()['token']);
      };
    };
    const operatorsToken = () =>
      installation.issue({ sub: 'ada', typ: 'client', scope: ['docs:write'], projects: ['*'] });
    const [one, other] = [await tenant(), await tenant()];
    const first = await post('{"v":4}', 'key-4', await one('ada'));
    for (const token of [await other('ada'), await one('bob'), await operatorsToken()])
      expect((await post('{"v":5}', 'key-4', token)).status).toBe(201);
    // A new token for the same subject, from the same issuer.
    expect((await post('{"v":4}', 'key-4', await one('ada'))).text).toBe(first.text);
    const again = await post('{"v":6}', 'key-4', await operatorsToken());
    expect([again.status, again.json()['code']]).toEqual([422, 'idempotency_mismatch']);
  });

  it('is checked before preconditions, for PUT and DELETE as well', async () => {
    const path = `${base('once')}/put`;
    const headers = { 'if-none-match': '*', 'idempotency-key': 'key-put' };
    expect((await put(path, '{"v":1}', headers)).status).toBe(201);
    expect((await put(path, '{"v":1}', headers)).status).toBe(201);
    const remove = () =>
      call(installation.url, path, { method: 'DELETE', token, headers: { 'idempotency-key': 'key-del' } });
    expect([(await remove()).status, (await remove()).status]).toEqual([204, 204]);
  });

  it.each(['', 'a b', 'é', 'x'.repeat(256)])('refuses the key %j', async (key) => {
    const answer = await post('{}', key).catch(() => undefined);
    if (answer !== undefined) expect(answer.json()['code']).toBe('invalid_request');
  });
});
