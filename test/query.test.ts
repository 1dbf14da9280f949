import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const collection = (project: string, name = 'notes') => `/v1/projects/${project}/collections/${name}`;
const post = (path: string, body: string, headers: Record<string, string> = {}) =>
  call(installation.url, path, { method: 'POST', token, body, headers });
const put = (project: string, id: string, body: string) =>
  call(installation.url, `${collection(project)}/documents/${id}`, { method: 'PUT', token, body });

interface Page {
  readonly documents: { readonly _id: string }[];
  readonly next_cursor?: string;
  readonly explain?: Record<string, unknown>;
}
const query = async (project: string, body: string): Promise<Page> => {
  const answer = await post(`${collection(project)}/query`, body);
  expect([answer.status, answer.text]).toEqual([200, expect.any(String)]);
  return answer.json() as unknown as Page;
};
const idsOf = ({ documents }: Page) => documents.map(({ _id }) => _id);

async function fill(project: string, documents: Record<string, string>): Promise<void> {
  for (const [id, body] of Object.entries(documents)) await put(project, id, body);
}

describe('POST …/query', () => {
  it('finds documents by typed, exact values, and returns their exact bytes', async () => {
    await fill('exact', {
      a: '{"n":12345678901234567890, "pad" : 1.10}',
      b: '{"n":12345678901234567891}',
      c: '{"n":"12345678901234567890"}',
      d: '{"n":1234567890123456789e1}',
    });
    const page = await query('exact', '{"where":{"n":12345678901234567890}}');
    expect(idsOf(page)).toEqual(['a', 'd']);
    const raw = await post(`${collection('exact')}/query`, '{"where":{"n":12345678901234567890},"limit":1}');
    expect(raw.text).toContain('"n":12345678901234567890, "pad" : 1.10}');
    expect(raw.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(idsOf(await query('exact', '{"where":{"n":{"$gt":12345678901234567890}}}'))).toEqual(['b']);
  });

  it('a query without a condition lists everything in the order of creation, and can filter by metadata', async () => {
    await fill('all', { c: '{}', a: '{}', b: '{}' });
    expect(idsOf(await query('all', '{}'))).toEqual(['c', 'a', 'b']);
    expect(
      idsOf(await query('all', '{"where":{"_id":{"$in":["a","b"]}},"orderBy":[{"field":"_id"}]}')),
    ).toEqual(['a', 'b']);
  });

  it('pages in any order, with each document once and ties in the order of creation', async () => {
    const documents: Record<string, string> = {};
    for (let n = 0; n < 25; n++)
      documents[`d${n}`] = `{"g":${n % 3},"s":"${'\u{10000}\uffff'[n % 2]}","n":${n}}`;
    await fill('pages', documents);
    for (const orderBy of [
      '[]',
      '[{"field":"g"}]',
      '[{"field":"g","direction":"desc"},{"field":"n"}]',
      '[{"field":"n","direction":"desc"}]',
      '[{"field":"absent"}]',
    ]) {
      const whole = idsOf(await query('pages', `{"orderBy":${orderBy}}`));
      expect(new Set(whole).size).toBe(25);
      const pieces: string[] = [];
      for (let cursor: string | undefined = ''; cursor !== undefined; ) {
        const given: string = cursor === '' ? '' : `,"cursor":"${cursor}"`;
        const page: Page = await query('pages', `{"orderBy":${orderBy},"limit":4${given}}`);
        pieces.push(...idsOf(page));
        cursor = page.next_cursor;
      }
      expect(pieces).toEqual(whole);
    }
    expect(idsOf(await query('pages', '{"orderBy":[{"field":"g"}],"limit":3}'))).toEqual(['d0', 'd3', 'd6']);
  });

  it('refuses a changed cursor and one of another query, collection or project, and a cursor reveals nothing', async () => {
    await fill('cursors', { a: '{"v":"needle-1"}', b: '{"v":"needle-2"}', c: '{"v":"needle-3"}' });
    await fill('cursors-2', { a: '{}', b: '{}' });
    const { next_cursor: cursor = '' } = await query('cursors', '{"orderBy":[{"field":"v"}],"limit":1}');
    expect(Buffer.from(cursor, 'base64url').toString('latin1')).not.toContain('needle');
    const last = cursor.endsWith('A') ? 'B' : 'A';
    for (const [project, body] of [
      ['cursors', `{"orderBy":[{"field":"v","direction":"desc"}],"cursor":"${cursor}"}`],
      ['cursors', `{"where":{"v":1},"orderBy":[{"field":"v"}],"cursor":"${cursor}"}`],
      ['cursors', `{"cursor":"${cursor}"}`],
      ['cursors-2', `{"orderBy":[{"field":"v"}],"cursor":"${cursor}"}`],
      ['cursors', `{"orderBy":[{"field":"v"}],"cursor":"${cursor.slice(0, -1)}${last}"}`],
      ['cursors', `{"orderBy":[{"field":"v"}],"cursor":"x"}`],
    ] as const) {
      const answer = await post(`${collection(project)}/query`, body);
      expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_cursor']);
    }
    expect(
      idsOf(await query('cursors', `{"limit":2,"orderBy":[{"field":"v"}],"cursor":"${cursor}"}`)),
    ).toEqual(['b', 'c']);
  });

  it('returns only the selected members, as they are written, and binds the cursor to the selection', async () => {
    await fill('fields', { a: '{"n": 1.10 ,"x":{"y":1,"z":2}, "pad":"…"}', b: '{"n":2}' });
    const ask = (fields: string, more = '') =>
      post(`${collection('fields')}/query`, `{"limit":1,"fields":${fields}${more}}`);
    const page = await ask('["n","x.y"]');
    expect(page.text).toMatch(/"_updated":"[^"]+","n": 1\.10 ,"x":\{"y":1\}\}\],"next_cursor"/);
    const cursor = `,"cursor":"${page.json()['next_cursor']}"`;
    expect((await ask('["n"]', cursor)).json()['code']).toBe('invalid_cursor');
    expect((await ask('["x.y","n"]', cursor)).text).toMatch(/"n":2\}\],"as_of":\d+\}$/);
    for (const wrong of ['[]', '["a..b"]', '"n"', '["$a"]']) expect((await ask(wrong)).status).toBe(400);
  });

  it('explains on request how the answer was found', async () => {
    await fill('explain', { a: '{"v":1}', b: '{"v":2}', c: '{"v":3}' });
    const { explain } = await query('explain', '{"where":{"v":{"$gte":2}},"explain":true}');
    expect(explain).toMatchObject({
      index: null,
      order: 'creation',
      documents_scanned: 3,
      documents_matched: 2,
    });
    expect((await query('explain', '{}')).explain).toBeUndefined();
  });

  it('finds parts of strings without regard to case, and whole numbers by their remainder', async () => {
    await fill('parts', { a: '{"v":"Große Straße"}', b: '{"v":"STRASSE"}', c: '{"v":12345678901234567893}' });
    const found = async (test: string) => idsOf(await query('parts', `{"where":{"v":${test}}}`));
    expect(await found('{"$contains":"Stra"}')).toEqual(['a']);
    expect(await found('{"$endsWith":"strasse","$options":"i"}')).toEqual(['a', 'b']);
    expect(await found('{"$mod":[5,3]}')).toEqual(['c']);
  });

  it.each([
    ['{"where":{"a":{"$contains":"x","$options":"im"}}}', 'body.where.a.$options'],
    ['{"where":{"a":{"$mod":[0,1]}}}', 'body.where.a.$mod.0'],
    ['{"where":{"a":{"$regex":"x"}}}', 'body.where.a'],
    ['{"where":{"$where":"return 1"}}', 'body.where'],
    ['{"where":5}', 'body.where'],
    ['{"limit":0}', 'body.limit'],
    ['{"limit":1001}', 'body.limit'],
    ['{"limit":12345678901234567890}', 'body.limit'],
    ['{"skip":1}', 'body'],
    ['{"orderBy":[{"field":"a..b"}]}', 'body.orderBy.0.field'],
    ['{"orderBy":[{"field":"$a"}]}', 'body.orderBy.0.field'],
    ['{"orderBy":[{"field":"a","direction":"up"}]}', 'body.orderBy.0.direction'],
    ['{"orderBy":[{"field":"a"},{"field":"b"},{"field":"c"},{"field":"d"},{"field":"e"}]}', 'body.orderBy'],
    ['{"cursor":5}', 'body.cursor'],
  ])('refuses %s', async (body, place) => {
    const answer = await post(`${collection('explain')}/query`, body);
    expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_request']);
    expect((answer.json()['errors'] as { path: string }[]).map(({ path }) => path)).toEqual([place]);
  });

  it.each([
    ['{"where":{"a":1,"a":2}}', 400, 'invalid_json'],
    ['[]', 400, 'invalid_json'],
    ['', 400, 'invalid_json'],
    [`{"where":{"a":"${'x'.repeat(270_000)}"}}`, 413, 'payload_too_large'],
  ])('refuses a body that is not a query', async (body, status, code) => {
    const answer = await post(`${collection('explain')}/query`, body);
    expect([answer.status, answer.json()['code']]).toEqual([status, code]);
  });

  it('is 404 for a project that does not exist, and empty for a collection without documents', async () => {
    expect((await post(`${collection('never')}/query`, '{}')).json()['code']).toBe('project_not_found');
    const none = await post(`${collection('explain', 'none')}/query`, '{}');
    expect(none.text).toMatch(/^\{"documents":\[\],"as_of":\d+\}$/);
  });

  it('requires the scope docs:read for the project, and is not available by GET', async () => {
    const writer = await installation.client(['*'], ['docs:write']);
    const stranger = await installation.client(['other'], ['docs:read']);
    for (const path of ['query', 'count', 'aggregate']) {
      for (const who of [writer, stranger]) {
        const options = { method: 'POST', token: who, body: '{}' };
        expect((await call(installation.url, `${collection('explain')}/${path}`, options)).status).toBe(403);
      }
      const answer = await call(installation.url, `${collection('explain')}/${path}`, { token });
      expect([answer.status, answer.headers['allow']]).toEqual([405, 'POST']);
    }
  });
});

describe('POST …/count', () => {
  it('counts the documents that match a condition', async () => {
    await fill('count', { a: '{"v":1}', b: '{"v":2}', c: '{"v":[2,3]}' });
    const two = await post(`${collection('count')}/count`, '{"where":{"v":2}}');
    expect(two.text).toMatch(/^\{"count":2,"as_of":\d+\}$/);
    expect((await post(`${collection('count')}/count`, '{}')).json()).toMatchObject({ count: 3 });
    expect((await post(`${collection('count')}/count`, '{"limit":1}')).status).toBe(400);
  });
});

describe('POST …/aggregate', () => {
  const aggregate = async (body: string) => (await post(`${collection('sales')}/aggregate`, body)).json();
  beforeAll(() =>
    fill('sales', {
      a: '{"country":"fr","year":2025,"amount":10}',
      b: '{"country":"fr","year":2026,"amount":0.5}',
      c: '{"country":"de","year":2026,"amount":12345678901234567890}',
      d: '{"country":"de","year":2026,"amount":12345678901234567891}',
      e: '{"country":"de","year":2026,"amount":"no number"}',
      f: '{"year":2026,"amount":null}',
    }),
  );

  it('computes exact figures by group', async () => {
    const figures =
      '{"n":{"op":"count"},"total":{"op":"sum","field":"amount"},"mean":{"op":"avg","field":"amount"},"least":{"op":"min","field":"amount"},"most":{"op":"max","field":"amount"}}';
    const { text } = await post(
      `${collection('sales')}/aggregate`,
      `{"groupBy":["country"],"figures":${figures}}`,
    );
    const numbers = '"least":12345678901234567890,"most":"no number"';
    expect(text).toContain(
      `"groups":[${[
        '{"group":{},"figures":{"n":1,"total":0,"mean":null,"least":null,"most":null}}',
        `{"group":{"country":"de"},"figures":{"n":3,"total":24691357802469135781,"mean":12345678901234567890.5,${numbers}}}`,
        '{"group":{"country":"fr"},"figures":{"n":2,"total":10.5,"mean":5.25,"least":0.5,"most":10}}',
      ].join(',')}]`,
    );
  });

  it('adds up prices without the errors of doubles, and refuses numbers that have too many places', async () => {
    const prices = Object.fromEntries(Array.from({ length: 27 }, (_, n) => [`d${n}`, '{"price":0.10}']));
    await fill('prices', { ...prices, wrong: '{"price":1e1000,"is":"wrong"}' });
    const total = (condition: string) =>
      post(
        `${collection('prices')}/aggregate`,
        `{"where":${condition},"figures":{"total":{"op":"sum","field":"price"},"mean":{"op":"avg","field":"price"}}}`,
      );
    const answer = await total('{"price":{"$lt":1e999}}');
    expect(answer.text).toContain('"figures":{"total":2.7,"mean":0.1}');
    const refused = await total('{}');
    expect([refused.status, refused.json()['code']]).toEqual([400, 'query_too_expensive']);
    expect(refused.json()['detail']).toContain('a number at "price" has digits more than 1000 places');
  });

  it('groups by two fields, and returns one group when no field is given', async () => {
    const { groups } = await aggregate('{"groupBy":["year","country"],"figures":{"n":{"op":"count"}}}');
    expect(groups).toEqual([
      { group: { year: 2025, country: 'fr' }, figures: { n: 1 } },
      { group: { year: 2026 }, figures: { n: 1 } },
      { group: { year: 2026, country: 'de' }, figures: { n: 3 } },
      { group: { year: 2026, country: 'fr' }, figures: { n: 1 } },
    ]);
    const none = await aggregate(
      '{"where":{"x":1},"figures":{"n":{"op":"count"},"s":{"op":"sum","field":"amount"}}}',
    );
    expect(none).toMatchObject({ groups: [{ group: {}, figures: { n: 0, s: 0 } }] });
  });

  it('lists and counts different values, and finds percentiles by nearest rank', async () => {
    const times = Object.fromEntries(
      ['12', '1.0', '1', '3e0', '"late"', 'null', '[]', '2'].map((ms, at) => [`d${at}`, `{"ms":${ms}}`]),
    );
    await fill('times', { ...times, none: '{}' });
    const shown = async (where: string, figures: string) =>
      (await post(`${collection('times')}/aggregate`, `{"where":${where},"figures":${figures}}`)).text;
    const percentiles = [0, 20, 20.001, 50, 99.999, 100].map(
      (percent, at) => `"p${at}":{"op":"percentile","field":"ms","percent":${percent}}`,
    );
    expect(await shown('{"ms":{"$type":"number"}}', `{${percentiles.join(',')}}`)).toContain(
      '"figures":{"p0":1,"p1":1,"p2":1,"p3":2,"p4":12,"p5":12}',
    );
    const values = '{"all":{"op":"distinct","field":"ms"},"many":{"op":"countDistinct","field":"ms"}}';
    expect(await shown('{}', values)).toContain('"figures":{"all":[1,2,3,12,"late",[]],"many":6}');
    expect(await shown('{"ms":{"$exists":false}}', `{${percentiles[3]},${values.slice(1)}`)).toContain(
      '"figures":{"p3":null,"all":[],"many":0}',
    );
  });

  it('answers with those groups alone whose figures meet a condition', async () => {
    const groupsOf = async (having: string, groupBy = '["country"]') => {
      const figures = '{"n":{"op":"count"},"total":{"op":"sum","field":"amount"}}';
      const answer = await aggregate(`{"groupBy":${groupBy},"figures":${figures},"having":${having}}`);
      const groups = answer['groups'] as { readonly group: { readonly country?: string } }[];
      return groups.map(({ group }) => group.country ?? null);
    };
    expect(await groupsOf('{"n":{"$gte":2}}')).toEqual(['de', 'fr']);
    expect(await groupsOf('{"total":24691357802469135781}')).toEqual(['de']);
    expect(await groupsOf('{"total":24691357802469135782}')).toEqual([]);
    expect(await groupsOf('{"$or":[{"n":1},{"total":{"$lt":11,"$gt":0}}]}')).toEqual([null, 'fr']);
    expect(await groupsOf('{"n":{"$gt":100}}', '[]')).toEqual([]);
    const counted = await aggregate('{"figures":{"n":{"op":"count"}},"having":{"n":7}}');
    expect(counted).toMatchObject({ groups: [] });
  });

  it('says which figures a condition on them may test', async () => {
    const answer = await post(
      `${collection('sales')}/aggregate`,
      '{"figures":{"total":{"op":"count"}},"having":{"$and":[{"totl":1},{"total":{"$elemMatch":{"a":1}}}]}}',
    );
    expect([answer.status, answer.json()['errors']]).toEqual([
      400,
      [{ path: 'body.having', message: 'totl (did you mean total?): unknown; known are total' }],
    ]);
  });

  it.each([
    '{}',
    '{"figures":{}}',
    '{"figures":{"n":{"op":"percentile","field":"a"}}}',
    '{"figures":{"n":{"op":"percentile","field":"a","percent":101}}}',
    '{"figures":{"n":{"op":"percentile","field":"a","percent":99.9999}}}',
    '{"figures":{"n":{"op":"percentile","field":"a","percent":"95"}}}',
    '{"figures":{"n":{"op":"distinct"}}}',
    '{"figures":{"n":{"op":"distinct","field":"a","percent":5}}}',
    '{"figures":{"n":{"op":"count"}},"having":[]}',
    '{"figures":{"n":{"op":"count"}},"having":{"n":{"$above":5}}}',
    '{"figures":{"n":{"op":"count"}},"having":{"country":"de"}}',
    '{"figures":{"n":{"op":"median","field":"a"}}}',
    '{"figures":{"n":{"op":"sum"}}}',
    '{"figures":{"n":{"op":"sum","field":"a."}}}',
    '{"figures":{"a b":{"op":"count"}}}',
    '{"groupBy":["a","b","c"],"figures":{"n":{"op":"count"}}}',
    '{"groupBy":["$a"],"figures":{"n":{"op":"count"}}}',
  ])('refuses %s', async (body) => {
    const answer = await post(`${collection('sales')}/aggregate`, body);
    expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_request']);
  });
});
