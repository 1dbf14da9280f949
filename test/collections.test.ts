import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let admin: string;
let writer: string;
beforeAll(async () => {
  installation = await Installation.start();
  admin = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  writer = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const collection = (project: string, name = 'notes') => `/v1/projects/${project}/collections/${name}`;
const define = (project: string, body: string, headers: Record<string, string> = {}, token = admin) =>
  call(installation.url, collection(project), { method: 'PUT', token, body, headers });
const get = (path: string, headers: Record<string, string> = {}) =>
  call(installation.url, path, { token: writer, headers });
const put = (project: string, id: string, body: string) =>
  call(installation.url, `${collection(project)}/documents/${id}`, { method: 'PUT', token: writer, body });

const SCHEMA = '{"schema":{"type":"object","required":["v"],"properties":{"v":{"type":"number"}}}}';

describe('PUT …/collections/{c}', () => {
  it('defines a collection, even of a project that does not exist yet, with an ETag for conditional changes', async () => {
    const first = await define('defined', SCHEMA, { 'if-none-match': '*' });
    expect([first.status, first.json()]).toEqual([
      201,
      {
        name: 'notes',
        documents: 0,
        bytes: 0,
        indexes: [],
        schema: expect.anything(),
        existing: { checked: 0, failing: 0, complete: true },
      },
    ]);
    expect((await define('defined', SCHEMA, { 'if-none-match': '*' })).status).toBe(412);
    const etag = String(first.headers['etag']);
    const read = await get(collection('defined'));
    expect([read.status, read.headers['etag']]).toEqual([200, etag]);
    expect((await get(collection('defined'), { 'if-none-match': etag })).status).toBe(304);
    const second = await define('defined', '{"ttl":{"field":"until"}}', { 'if-match': etag });
    expect([second.status, second.json()['ttl']]).toEqual([200, { field: 'until', seconds: 0 }]);
    const stale = await define('defined', SCHEMA, { 'if-match': etag });
    const [path, message] = ['headers.If-Match', 'the definition is at another revision'];
    expect([stale.status, stale.json()['errors']]).toEqual([
      412,
      [{ path, message, etag: second.headers['etag'] }],
    ]);
  });

  it('keeps the definition across a restart', async () => {
    await define('restarted', SCHEMA);
    const before = await get(collection('restarted'));
    await installation.stopBundoc();
    await installation.startBundoc();
    const after = await get(collection('restarted'));
    expect([after.text, after.headers['etag']]).toEqual([before.text, before.headers['etag']]);
    expect((await put('restarted', 'a', '{}')).status).toBe(422);
  });

  it('reports how many existing documents violate the schema, and leaves them unchanged', async () => {
    await put('late', 'a', '{"v":1}');
    await put('late', 'b', '{"v":"x"}');
    await put('late', 'c', '{}');
    expect((await define('late', SCHEMA)).json()['existing']).toEqual({
      checked: 3,
      failing: 2,
      complete: true,
    });
    expect((await get(`${collection('late')}/documents/b`)).status).toBe(200);
  });

  it('reports how many existing documents have no time in the field of the time to live', async () => {
    await put('mistimed', 'a', '{"until":"2100-01-01T00:00:00Z"}');
    await put('mistimed', 'b', '{"until":"soon"}');
    await put('mistimed', 'c', '{"until":4102444800}');
    await put('mistimed', 'd', '{}');
    expect((await define('mistimed', '{"ttl":{"field":"until"}}')).json()['existing']).toEqual({
      checked: 4,
      failing: 0,
      invalid_times: 2,
      complete: true,
    });
  });

  it.each([
    ['{"schema":{"properties":{"a":{"pattern":"^(a+)+$"}}}}', 'body.schema.properties.a'],
    ['{"schema":{"properties":{"a":{"minimum":12345678901234567}}}}', 'body.schema.properties.a.minimum'],
    ['{"schema":{"enum":[{"a":1e400}]}}', 'body.schema.enum.0.a'],
    ['{"schema":{"$ref":"https://example.org/x"}}', 'body.schema'],
    ['{"schema":{"typ":"object"}}', 'body.schema'],
    ['{"schema":5}', 'body.schema'],
    ['{"ttl":{"field":"a..b"}}', 'body.ttl.field'],
    ['{"ttl":{"field":"a","seconds":-1}}', 'body.ttl.seconds'],
    ['{"ttl":"a"}', 'body.ttl'],
    ['{"validate":true}', 'body'],
  ])('refuses %s, and changes nothing', async (body, place) => {
    const before = await get(collection('late'));
    const answer = await define('late', body);
    expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_request']);
    expect((answer.json()['errors'] as { path: string }[])[0]?.path).toBe(place);
    expect((await get(collection('late'))).text).toBe(before.text);
  });

  it('creates no project for a definition that is refused', async () => {
    await define('unmade', '{"schema":5}');
    await define('unmade', SCHEMA, { 'if-match': '*' });
    await define('unmade', '{"schema":{"typ":1}}');
    expect((await get(collection('unmade'))).json()['code']).toBe('project_not_found');
  });

  it('requires docs:admin, for DELETE as well', async () => {
    expect((await define('late', SCHEMA, {}, writer)).status).toBe(403);
    const removing = await call(installation.url, `${collection('late')}/definition`, {
      method: 'DELETE',
      token: writer,
    });
    expect(removing.status).toBe(403);
  });
});

describe('GET …/collections', () => {
  it('lists collections that hold a document or are defined', async () => {
    await put('listed', 'a', '{"v":1}');
    await call(installation.url, collection('listed', 'empty'), { method: 'PUT', token: admin, body: '{}' });
    const answer = await get('/v1/projects/listed/collections');
    expect(answer.json()).toEqual({
      collections: [
        { name: 'empty', documents: 0, bytes: 0, defined: true },
        { name: 'notes', documents: 1, bytes: expect.any(Number), defined: false },
      ],
    });
    expect((await get('/v1/projects/never/collections')).json()['code']).toBe('project_not_found');
    expect((await get(collection('listed', 'none'))).json()['code']).toBe('collection_not_found');
  });
});

describe('DELETE …/collections/{c}/documents', () => {
  const drop = (project: string, confirm = 'notes', token = admin) =>
    call(installation.url, `${collection(project)}/documents?confirm=${confirm}`, {
      method: 'DELETE',
      token,
    });
  const fill = async (project: string, count: number) => {
    for (let first = 0; first < count; first += 200) {
      const operations = Array.from({ length: Math.min(200, count - first) }, (_, at) => ({
        op: 'put',
        collection: 'notes',
        id: `d${first + at}`,
        document: { v: 1 },
      }));
      const body = JSON.stringify({ operations });
      const path = `/v1/projects/${project}/batch`;
      expect((await call(installation.url, path, { method: 'POST', token: writer, body })).status).toBe(200);
    }
  };

  it('deletes all documents in answers of 500, then the definition, and leaves other collections', async () => {
    await define('dropped', SCHEMA);
    await fill('dropped', 1_200);
    const other = collection('dropped', 'other');
    await call(installation.url, `${other}/documents/a`, { method: 'PUT', token: writer, body: '{}' });
    const answers = [];
    for (let more = true; more; ) {
      const { deleted, more: isMore } = (await drop('dropped')).json();
      answers.push(deleted);
      more = isMore as boolean;
    }
    expect(answers).toEqual([500, 500, 200, 0]);
    expect((await get(collection('dropped'))).json()['code']).toBe('collection_not_found');
    expect((await get(other)).json()['documents']).toBe(1);
    expect((await get('/v1/projects/dropped/changes?limit=1000')).text).toContain('"deleted":true');
    expect((await drop('dropped')).json()).toEqual({ deleted: 0, more: false });
  });

  it('deletes documents that have expired, which a removed time to live would show again', async () => {
    await define('dropped-expired', '{"ttl":{"field":"at"}}');
    await put('dropped-expired', 'a', '{"at":"2020-01-01T00:00:00Z"}');
    expect((await get(`${collection('dropped-expired')}/documents/a`)).status).toBe(404);
    while ((await drop('dropped-expired')).json()['more']);
    expect((await get(`${collection('dropped-expired')}/documents/a`)).status).toBe(404);
    expect((await get(collection('dropped-expired'))).json()['code']).toBe('collection_not_found');
  });

  it('is refused without the name, without docs:admin, and for a project that does not exist', async () => {
    await fill('kept', 1);
    for (const confirm of ['', 'Notes', 'other']) expect((await drop('kept', confirm)).status).toBe(400);
    expect((await drop('kept', 'notes', writer)).status).toBe(403);
    expect((await drop('never-made')).json()['code']).toBe('project_not_found');
    expect((await get(`${collection('kept')}/documents/d0`)).status).toBe(200);
  });
});

describe('DELETE …/collections/{c}/definition', () => {
  it('removes the definition and leaves the documents', async () => {
    await define('undefined', SCHEMA);
    await put('undefined', 'a', '{"v":1}');
    const remove = () =>
      call(installation.url, `${collection('undefined')}/definition`, { method: 'DELETE', token: admin });
    expect((await remove()).status).toBe(204);
    expect((await put('undefined', 'b', '{"v":"x"}')).status).toBe(201);
    expect((await get(`${collection('undefined')}/documents/a`)).status).toBe(200);
    expect([(await remove()).status, (await remove()).json()['code']]).toEqual([404, 'collection_not_found']);
  });
});

describe('a schema', () => {
  it('refuses invalid documents by POST, PUT and PATCH with JSON pointers, and nothing is written', async () => {
    await define('schema', SCHEMA);
    await put('schema', 'a', '{"v":1}');
    const documents = `${collection('schema')}/documents`;
    const patched = await call(installation.url, `${documents}/a`, {
      method: 'PATCH',
      token: writer,
      body: '{"v":"x"}',
      headers: { 'content-type': 'application/merge-patch+json' },
    });
    const posted = await call(installation.url, documents, {
      method: 'POST',
      token: writer,
      body: '{"v":null}',
    });
    for (const answer of [await put('schema', 'a', '{"v":"needle"}'), patched, posted]) {
      expect([answer.status, answer.json()['code']]).toEqual([422, 'schema_violation']);
      expect(answer.json()['errors']).toEqual([{ path: '/v', message: 'must be number' }]);
      expect(answer.text).not.toContain('needle');
    }
    const batch = `{"operations":[{"op":"create","collection":"other","document":{}},
      {"op":"create","collection":"notes","document":{"v":1}},
      {"op":"create","collection":"notes","document":{"v":"needle"}}]}`;
    const refused = await call(installation.url, '/v1/projects/schema/batch', {
      method: 'POST',
      token: writer,
      body: batch,
    });
    expect(refused.json()).toMatchObject({
      code: 'schema_violation',
      detail: 'body.operations.2',
      errors: [{ path: '/v', message: 'must be number' }],
    });
    expect((await get(`${documents}/a`)).json()['v']).toBe(1);
    expect((await get(documents)).json()['documents']).toHaveLength(1);
  });
});

describe('a dry run of a schema', () => {
  const schemaCheck = (project: string, body: object, token = admin) =>
    call(installation.url, `${collection(project)}/schema-check`, {
      method: 'POST',
      token,
      body: JSON.stringify(body),
    });
  const { schema } = JSON.parse(SCHEMA) as { schema: object };

  it('checks each document once, in slices, names those that would be refused, and changes nothing', async () => {
    for (let n = 0; n < 7; n++) await put('dry', `d${n}`, n % 3 === 0 ? '{"v":"needle"}' : '{"v":1}');
    const before = (await get(collection('dry'))).text;
    let checked = 0;
    const failing: unknown[] = [];
    let cursor: unknown;
    do {
      const answer = await schemaCheck('dry', { schema, limit: 2, cursor });
      expect(answer.status, answer.text).toBe(200);
      expect(answer.text).not.toContain('needle');
      const found = answer.json();
      checked += Number(found['checked']);
      failing.push(...(found['failures'] as unknown[]));
      cursor = found['next_cursor'];
    } while (cursor !== undefined);
    expect(checked).toBe(7);
    const errors = [{ path: '/v', message: 'must be number' }];
    expect(failing).toEqual(['d0', 'd3', 'd6'].map((id) => ({ id, errors })));
    expect((await get(collection('dry'))).text).toBe(before);
  });

  it('names twenty of the documents that fail, and counts all of them', async () => {
    const operations = Array.from({ length: 30 }, (_, n) => ({
      op: 'put',
      collection: 'notes',
      id: `d${n}`,
      document: { v: `${n}` },
    }));
    const body = JSON.stringify({ operations });
    await call(installation.url, '/v1/projects/dry-many/batch', { method: 'POST', token: admin, body });
    const answer = (await schemaCheck('dry-many', { schema })).json();
    expect(answer).toMatchObject({ checked: 30, failing: 30 });
    expect([(answer['failures'] as unknown[]).length, answer['next_cursor']]).toEqual([20, undefined]);
  });

  it('accepts the same schemas as a definition', async () => {
    await put('dry', 'd0', '{"v":1}');
    for (const refused of [{ pattern: 'a' }, { typ: 'object' }, { enum: [{ $ref: 1 }], minimum: '1' }]) {
      const definition = await define('dry-none', JSON.stringify({ schema: refused }));
      const answer = await schemaCheck('dry', { schema: refused });
      expect([answer.status, answer.json()['errors']]).toEqual([400, definition.json()['errors']]);
    }
    const inexact = { minimum: 0 };
    const text = JSON.stringify({ schema: inexact }).replace('0', '12345678901234567');
    const answer = await call(installation.url, `${collection('dry')}/schema-check`, {
      method: 'POST',
      token: admin,
      body: text,
    });
    expect([answer.status, answer.json()['errors']]).toEqual([
      400,
      [{ path: 'body.schema.minimum', message: expect.stringContaining('significant digits') }],
    ]);
  });

  it('refuses a cursor of another schema or collection, and a token that may not define or may not read', async () => {
    for (const id of ['a', 'b']) await put('dry-cursor', id, '{"v":1}');
    const cursor = (await schemaCheck('dry-cursor', { schema, limit: 1 })).json()['next_cursor'];
    expect(cursor).toEqual(expect.any(String));
    for (const body of [
      { schema: {}, cursor },
      { schema, cursor: 'made-up' },
    ])
      expect((await schemaCheck('dry-cursor', body)).json()['code']).toBe('invalid_cursor');
    const reader = await installation.client(['*'], ['docs:read']);
    const definer = await installation.client(['*'], ['docs:admin']);
    for (const token of [reader, definer, writer])
      expect((await schemaCheck('dry-cursor', { schema }, token)).json()['code']).toBe('forbidden');
    expect((await schemaCheck('nowhere', { schema })).json()['code']).toBe('project_not_found');
  });
});

describe('an index', () => {
  const post = async (project: string, what: string, body: string) =>
    (
      await call(installation.url, `${collection(project)}/${what}`, { method: 'POST', token: writer, body })
    ).json();
  const ready = (project: string) =>
    expect
      .poll(async () =>
        ((await get(collection(project))).json()['indexes'] as { state: string }[]).map(({ state }) => state),
      )
      .toEqual(['ready', 'ready']);
  const query = async (project: string, body: string) => {
    const { documents, explain } = await post(project, 'query', body);
    return [(documents as { _id: string }[]).map(({ _id }) => _id), explain];
  };

  it('is declared, built online and used for equality, and explain names it', async () => {
    for (let n = 0; n < 30; n++)
      await put(
        'equal',
        `d${n}`,
        `{"owner":"o${n % 3}","tags":["t${n % 2}","all"],"mail":"m${n}@example.org"}`,
      );
    const defined = await define(
      'equal',
      '{"indexes":[{"fields":["owner","tags"]},{"name":"mail","fields":["mail"],"unique":true}]}',
    );
    expect(defined.json()['indexes']).toMatchObject([
      { name: 'owner+tags', fields: ['owner', 'tags'], unique: false },
      { name: 'mail', fields: ['mail'], unique: true },
    ]);
    await ready('equal');
    const where = '{"owner":{"$in":["o1","o2"]},"tags":"t0"}';
    expect(
      await query('equal', `{"where":${where},"orderBy":[{"field":"_id"}],"limit":3,"explain":true}`),
    ).toEqual([
      ['d10', 'd14', 'd16'],
      expect.objectContaining({ index: 'owner+tags', order: 'sorted', documents_scanned: 10 }),
    ]);
    expect(await query('equal', '{"where":{"mail":"m7@example.org"},"explain":true}')).toEqual([
      ['d7'],
      expect.objectContaining({ index: 'mail', documents_scanned: 1, documents_matched: 1 }),
    ]);
    expect(
      await post('equal', 'count', '{"where":{"owner":"o1","tags":"all"},"explain":true}'),
    ).toMatchObject({
      count: 10,
      explain: { index: 'owner+tags', documents_scanned: 10 },
    });
  });

  it('a unique index refuses a second document with an equal value by every write, even after a restart', async () => {
    const refusals = async () => {
      const documents = `${collection('equal')}/documents`;
      const again = '{"mail":"m1@example.org"}';
      const patch = {
        method: 'PATCH',
        token: writer,
        body: again,
        headers: { 'content-type': 'application/merge-patch+json' },
      };
      const operations = `{"operations":[{"op":"put","collection":"notes","id":"new","document":{"mail":"new"}},
        {"op":"create","collection":"notes","id":"again","document":${again}}]}`;
      return [
        await put('equal', 'again', again),
        await call(installation.url, documents, { method: 'POST', token: writer, body: again }),
        await call(installation.url, `${documents}/d2`, patch),
        await call(installation.url, '/v1/projects/equal/batch', {
          method: 'POST',
          token: writer,
          body: operations,
        }),
      ];
    };
    for (let round = 0; round < 2; round++) {
      const all = await refusals();
      expect(all.at(-1)?.json()['detail']).toMatch(/^body\.operations\.1: another document has the same/);
      for (const refused of all) {
        expect([refused.status, refused.json()['code']]).toEqual([409, 'unique_violation']);
        expect(refused.text).not.toContain('example.org');
      }
      expect((await get(`${collection('equal')}/documents/new`)).status).toBe(404);
      expect(
        await post('equal', 'count', '{"where":{"mail":"m1@example.org"},"explain":true}'),
      ).toMatchObject({
        count: 1,
        explain: { index: 'mail' },
      });
      if (round === 1) break;
      await installation.stopBundoc();
      await installation.startBundoc();
      await ready('equal');
    }
    const deleted = await call(installation.url, `${collection('equal')}/documents/d1`, {
      method: 'DELETE',
      token: writer,
    });
    expect(deleted.status).toBe(204);
    expect((await put('equal', 'again', '{"mail":"m1@example.org"}')).status).toBe(201);
  });

  it('an index that is defined unique over duplicates reports their number, and is not enforced until redefined', async () => {
    for (const id of ['a', 'b', 'c']) await put('doubled', id, '{"mail":"x"}');
    const unique = '{"indexes":[{"fields":["mail"],"unique":true}]}';
    const indexes = async () => (await get(collection('doubled'))).json()['indexes'];
    await define('doubled', unique);
    await expect.poll(indexes).toMatchObject([{ state: 'duplicates', duplicates: 2 }]);
    expect((await put('doubled', 'd', '{"mail":"x"}')).status).toBe(201);
    for (const id of ['b', 'c', 'd'])
      await call(installation.url, `${collection('doubled')}/documents/${id}`, {
        method: 'DELETE',
        token: writer,
      });
    await define('doubled', unique);
    await expect.poll(indexes).toMatchObject([{ state: 'ready' }]);
    expect((await put('doubled', 'b', '{"mail":"x"}')).status).toBe(409);
  });

  it('an index serves ranges, prefixes and order as well', async () => {
    for (let n = 0; n < 60; n++)
      await put('indexed', `d${n}`, `{"owner":"o${n % 3}","n":${n},"mail":"m${n}@example.org"}`);
    await define(
      'indexed',
      '{"indexes":[{"fields":["owner","n"]},{"name":"mail","fields":["mail"],"unique":true}]}',
    );
    await ready('indexed');
    expect(
      await query(
        'indexed',
        '{"where":{"owner":"o1"},"orderBy":[{"field":"n","direction":"desc"}],"limit":3,"explain":true}',
      ),
    ).toEqual([
      ['d58', 'd55', 'd52'],
      expect.objectContaining({ index: 'owner+n', order: 'index', documents_scanned: 4 }),
    ]);
    expect(
      await query('indexed', '{"where":{"owner":{"$in":["o1","o2"]},"n":{"$gte":56}},"explain":true}'),
    ).toEqual([
      ['d56', 'd58', 'd59'],
      expect.objectContaining({ index: 'owner+n', order: 'sorted', documents_scanned: 3 }),
    ]);
    expect(
      await query(
        'indexed',
        '{"where":{"mail":{"$beginsWith":"m5"}},"orderBy":[{"field":"mail"}],"limit":2,"explain":true}',
      ),
    ).toEqual([
      ['d50', 'd51'],
      expect.objectContaining({ index: 'mail', order: 'index', documents_scanned: 3 }),
    ]);
    expect(await post('indexed', 'count', '{"where":{"owner":"o1"},"explain":true}')).toMatchObject({
      count: 20,
      explain: { index: 'owner+n', documents_scanned: 0 },
    });
  });
});

describe('a definition of indexes', () => {
  it.each([
    ['{"indexes":[{"fields":[]}]}', 'body.indexes.0.fields'],
    ['{"indexes":[{"fields":["a","b","c","d","e"]}]}', 'body.indexes.0.fields'],
    ['{"indexes":[{"fields":["a","a"]}]}', 'body.indexes.0.fields'],
    ['{"indexes":[{"fields":["$a"]}]}', 'body.indexes.0.fields.0'],
    ['{"indexes":[{"fields":["a:desc"]}]}', 'body.indexes.0.fields.0'],
    ['{"indexes":[{"fields":["a"]},{"name":"a","fields":["b"]}]}', 'body.indexes.1.name'],
    ['{"indexes":[{"fields":["a"],"sparse":true}]}', 'body.indexes.0'],
    [
      `{"indexes":[${Array.from({ length: 17 }, (_, n) => `{"fields":["f${n}"]}`).join(',')}]}`,
      'body.indexes',
    ],
  ])('is refused: %s', async (body, place) => {
    const answer = await define('indexed', body);
    expect([answer.status, (answer.json()['errors'] as { path: string }[])[0]?.path]).toEqual([400, place]);
  });
});

describe('a time to live', () => {
  it('hides an expired document from every read, and frees its id', async () => {
    await define('ttl', '{"ttl":{"field":"until"}}');
    await put('ttl', 'old', '{"until":"2020-01-01T00:00:00Z"}');
    await put('ttl', 'new', '{"until":"2999-01-01T00:00:00Z"}');
    const documents = `${collection('ttl')}/documents`;
    expect((await get(`${documents}/old`)).status).toBe(404);
    const listed = (await get(documents)).json()['documents'] as { _id: string }[];
    expect(listed.map(({ _id }) => _id)).toEqual(['new']);
    const count = await call(installation.url, `${collection('ttl')}/count`, {
      method: 'POST',
      token: writer,
      body: '{}',
    });
    expect(count.json()).toMatchObject({ count: 1 });
    const again = await call(installation.url, `${documents}/old`, {
      method: 'PUT',
      token: writer,
      body: '{}',
      headers: { 'if-none-match': '*' },
    });
    expect(again.status).toBe(201);
  });

  it('removes an expired document although no request opens its project, even after a restart', async () => {
    const clock = new MovedClock();
    await using own = await Installation.start({ clock });
    const token = await own.client(['p'], ['docs:write', 'docs:admin']);
    const write = (path: string, body: string) =>
      call(own.url, `${collection('p')}${path}`, { method: 'PUT', token, body });
    expect((await write('', '{"ttl":{"field":"until"}}')).status).toBe(201);
    const until = new Date(clock.now() + 600_000).toISOString();
    for (const [id, body] of [
      ['expires', `{"until":"${until}"}`],
      ['stays', '{}'],
    ] as const)
      expect((await write(`/documents/${id}`, body)).status).toBe(201);
    // The definition is stored as a document too.
    await own.stored.sealedDocuments('p', 3);
    await own.stopBundoc();
    await own.startBundoc();
    const hours = setInterval(() => {
      clock.movedMs += 3_600_000;
    }, 500);
    try {
      await expect
        .poll(async () => (await own.stored.sealedDocuments('p', 2).catch(() => [])).length)
        .toBe(2);
    } finally {
      clearInterval(hours);
    }
  });
});
