import { PROBLEMS, type Problem, type ProblemCode, problemSchema } from '@bundoc/shared/contract/problem';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
let admin: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
  admin = await installation.client(['*'], ['docs:admin', 'docs:read', 'docs:write']);
});
afterAll(() => installation[Symbol.asyncDispose]());

const at = (project: string, collection = 'notes') => `/v1/projects/${project}/collections/${collection}`;
const post = (path: string, body: unknown, headers: Record<string, string> = {}, who = token) =>
  call(installation.url, path, {
    method: 'POST',
    token: who,
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers,
  });
const update = (project: string, body: unknown, headers?: Record<string, string>) =>
  post(`${at(project)}/update`, body, headers);
const remove = (project: string, body: unknown, headers?: Record<string, string>) =>
  post(`${at(project)}/delete`, body, headers);
const get = (project: string, id: string) =>
  call(installation.url, `${at(project)}/documents/${id}`, { token });
const count = async (project: string, where: unknown = {}) =>
  (await post(`${at(project)}/count`, { where })).json()['count'];

async function fill(project: string, texts: readonly string[]) {
  for (let first = 0; first < texts.length; first += 500) {
    const operations = texts
      .slice(first, first + 500)
      .map((text, n) => `{"op":"put","collection":"notes","id":"d${first + n}","document":${text}}`);
    const body = `{"operations":[${operations.join()}]}`;
    expect((await post(`/v1/projects/${project}/batch`, body)).status).toBe(200);
  }
}

const many = (length: number, of = (n: number) => `{"n":${n},"amount":1.10}`) =>
  Array.from({ length }, (_, n) => of(n));

function problemIn(answer: Answer, code: ProblemCode): Problem {
  const problem = problemSchema.parse(answer.json());
  expect([answer.status, problem.code]).toEqual([PROBLEMS[code].status, code]);
  return problem;
}

/** Sends a request until there is no cursor. */
async function all(
  send: (body: object, n: number) => Promise<Answer>,
  body: object,
): Promise<Record<string, unknown>[]> {
  const answers: Record<string, unknown>[] = [];
  let cursor: unknown;
  do {
    const answer = await send(cursor === undefined ? body : { ...body, cursor }, answers.length);
    expect(answer.status).toBe(200);
    answers.push(answer.json());
    cursor = answer.json()['next_cursor'];
  } while (cursor !== undefined);
  return answers;
}

describe('POST …/update', () => {
  it('changes what matches in answers of one commit each, with exact numbers, and leaves all other text', async () => {
    await fill(
      'updated',
      many(1_200, (n) => `{ "n":${n}, "amount":1.10,"big":12345678901234567890 }`),
    );
    const body = { where: { n: { $lt: 1_100 } }, update: { $inc: { amount: 0.2 } } };
    const answers = await all((one) => update('updated', one), body);
    expect(answers.map(({ matched, changed }) => [matched, changed])).toEqual([
      [500, 500],
      [500, 500],
      [100, 100],
    ]);
    expect((await get('updated', 'd7')).text).toContain('"n":7, "amount":1.30,"big":12345678901234567890 ');
    expect((await get('updated', 'd1100')).text).toContain('"amount":1.10');
    const where = '{"where":{"big":12345678901234567891},"update":{"$unset":{"big":""}}}';
    expect((await update('updated', where)).json()).toEqual({ matched: 0, changed: 0 });
  });

  it('changes each document once, although all still match, among others that write', async () => {
    await fill('once', many(300));
    const others = Array.from({ length: 8 }, async (_, writer) => {
      for (let n = writer; n < 300; n += 8)
        await call(installation.url, `${at('once')}/documents/d${n}`, {
          method: 'PATCH',
          token,
          body: '{"$inc":{"own":1}}',
          headers: { 'content-type': 'application/vnd.bundoc.update+json' },
        });
    });
    const body = { where: {}, update: { $inc: { seen: 1 } }, limit: 40 };
    const [answers] = await Promise.all([all((one) => update('once', one), body), ...others]);
    expect(answers.reduce((sum, { changed }) => sum + Number(changed), 0)).toBe(300);
    expect(await count('once', { seen: 1, own: 1 })).toBe(300);
  });

  it('finds documents by an index in any order, also while it moves them within it', async () => {
    await fill(
      'indexed',
      many(400, (n) => `{"n":${n % 100},"kind":"${n % 2 === 0 ? 'even' : 'odd'}"}`),
    );
    const indexes = [{ fields: ['n'] }, { fields: ['kind'] }];
    const body = JSON.stringify({ indexes });
    await call(installation.url, at('indexed'), { method: 'PUT', token: admin, body });
    const states = async () => {
      const info = (await call(installation.url, at('indexed'), { token })).json();
      return (info['indexes'] as { state: string }[]).map(({ state }) => state);
    };
    await expect.poll(states).toEqual(['ready', 'ready']);
    const ranged = { where: { n: { $gte: 90 } }, update: { $inc: { n: 5 } }, limit: 15 };
    const answers = await all((one) => update('indexed', one), ranged);
    expect(answers.map(({ changed }) => changed)).toEqual([15, 15, 10]);
    expect(await count('indexed', { n: { $gte: 95 } })).toBe(40);
    const fixed = { where: { kind: 'odd' }, update: { $set: { kind: 'even' } }, limit: 30 };
    expect((await all((one) => update('indexed', one), fixed)).length).toBe(7);
    expect(await count('indexed', { kind: 'even' })).toBe(400);
  });

  it('refuses a whole answer, names the document and the operator, and writes nothing of it', async () => {
    await fill('refused', ['{"n":1}', '{"n":"text"}', '{"n":3}']);
    const answer = await update('refused', { where: {}, update: { $inc: { n: 1 } } });
    const problem = problemIn(answer, 'patch_inapplicable');
    expect(problem).toMatchObject({
      detail: 'the document "d1"',
      errors: [{ path: 'body.update.$inc.n' }],
    });
    expect(await count('refused', { n: { $in: [1, 3, 'text'] } })).toBe(3);
    await call(installation.url, at('refused'), {
      method: 'PUT',
      token: admin,
      body: '{"schema":{"properties":{"n":{"type":["number","string"]}}}}',
    });
    const violated = await update('refused', { where: { n: 3 }, update: { $set: { n: true } } });
    expect(problemIn(violated, 'schema_violation').detail).toBe('the document "d2"');
  });

  it('happens once under a key, and gives the first answer again', async () => {
    await fill('keyed', many(30));
    const send = (body: object, n: number) => update('keyed', body, { 'Idempotency-Key': `whole.${n}` });
    const body = { where: {}, update: { $inc: { seen: 1 } }, limit: 12 };
    const first = await all(send, body);
    expect(await all(send, body)).toEqual(first);
    expect(await count('keyed', { seen: 1 })).toBe(30);
    problemIn(await send({ ...body, limit: 13 }, 0), 'idempotency_mismatch');
    problemIn(await update('keyed', body, { 'Idempotency-Key': '' }), 'invalid_request');
  });

  it('counts in a dry run, names the first documents, and writes nothing', async () => {
    await fill('dry', many(30));
    const body = { where: { n: { $gte: 5 } }, update: { $set: { n: -1 } }, limit: 20, dry_run: true };
    const headers = { 'Idempotency-Key': 'dry' };
    const first = (await update('dry', body, headers)).json();
    expect(first).toMatchObject({ matched: 20, changed: 20, next_cursor: expect.any(String) });
    expect(first['ids']).toEqual(Array.from({ length: 20 }, (_, n) => `d${n + 5}`));
    expect(await count('dry', { n: -1 })).toBe(0);
    const { dry_run: _, ...real } = body;
    problemIn(await update('dry', { ...real, cursor: first['next_cursor'] }), 'invalid_cursor');
    expect((await update('dry', real, headers)).json()).toMatchObject({ changed: 20 });
  });
});

describe('POST …/delete', () => {
  it('deletes what matches, and the deletions are in the feed', async () => {
    await fill('deleted', many(700));
    const answers = await all((one) => remove('deleted', one), { where: { n: { $gte: 100 } } });
    expect(answers.map(({ matched, deleted }) => [matched, deleted])).toEqual([
      [500, 500],
      [100, 100],
    ]);
    expect(await count('deleted')).toBe(100);
    const feed = await call(installation.url, '/v1/projects/deleted/changes?limit=1000', { token });
    expect(feed.text.split('"deleted":true').length - 1).toBe(600);
    expect((await remove('deleted', { where: { n: { $gte: 100 } } })).json()).toEqual({
      matched: 0,
      deleted: 0,
    });
  });

  it('leaves a definition, another collection, and expired documents alone', async () => {
    await fill('kept', many(3));
    await call(installation.url, `${at('kept', 'other')}/documents/a`, { method: 'PUT', token, body: '{}' });
    await call(installation.url, at('kept'), { method: 'PUT', token: admin, body: '{"ttl":{"field":"at"}}' });
    expect((await remove('kept', { where: {} })).json()).toEqual({ matched: 3, deleted: 3 });
    expect((await call(installation.url, at('kept'), { token })).status).toBe(200);
    expect((await call(installation.url, `${at('kept', 'other')}/documents/a`, { token })).status).toBe(200);
  });
});

describe('a wrong request of either', () => {
  const RAISE = { update: { $inc: { n: 1 } } };

  it('is refused with the member at fault, and writes nothing', async () => {
    await fill('wrong', ['{"n":1}']);
    const cases: readonly (readonly [unknown, string])[] = [
      [{}, 'body.where'],
      [{ where: null }, 'body.where'],
      [{ where: [] }, 'body.where'],
      [{ where: { n: { $regex: 'x' } } }, 'body.where.n'],
      [{ where: {}, limit: 0 }, 'body.limit'],
      [{ where: {}, limit: 501 }, 'body.limit'],
      [{ where: {}, limit: 1.5 }, 'body.limit'],
      [{ where: {}, limit: '5' }, 'body.limit'],
      [{ where: {}, cursor: '' }, 'body.cursor'],
      [{ where: {}, cursor: 5 }, 'body.cursor'],
      [{ where: {}, dry_run: 'yes' }, 'body.dry_run'],
      [{ where: {}, orderBy: [] }, 'body'],
      [{ where: {}, as_of: 1 }, 'body'],
    ];
    for (const [body, path] of cases)
      for (const [send, more] of [
        [update, RAISE],
        [remove, {}],
      ] as const) {
        const answer = await send('wrong', { ...(body as object), ...more });
        const { errors } = problemIn(answer, 'invalid_request');
        expect(errors?.map((fault) => fault.path).join(), JSON.stringify(body)).toContain(path);
      }
    problemIn(await remove('wrong', { where: {}, update: {} }), 'invalid_request');
    problemIn(await remove('wrong', '[]'), 'invalid_json');
    const missing = problemIn(await remove('wrong', {}), 'invalid_request');
    expect(missing.errors?.[0]?.message).toBe('is required; {} means every document');
    expect((await get('wrong', 'd0')).json()['n']).toBe(1);
  });

  it('is 400 for an update that fits no document', async () => {
    for (const wrong of ['{}', '{"n":2}', '{"$inc":{"n":"1"}}', '{"$rename":{"n":"m"}}', '[]', 'null', '5'])
      problemIn(await update('wrong', `{"where":{},"update":${wrong}}`), 'invalid_patch');
    const { errors } = problemIn(await update('wrong', '{"where":{}}'), 'invalid_request');
    expect(errors).toMatchObject([{ path: 'body.update' }]);
    const named = problemIn(
      await update('wrong', '{"where":{},"update":{"$inc":{"n":"1"}}}'),
      'invalid_patch',
    );
    expect(named.errors?.[0]?.path).toBe('body.update.$inc.n');
  });

  it('takes no cursor that is made up, or of another condition, collection, project or kind', async () => {
    await fill('cursors', many(3));
    const first = (await update('cursors', { where: {}, ...RAISE, limit: 1 })).json();
    const cursor = String(first['next_cursor']);
    const last = cursor.at(-1) === 'A' ? 'B' : 'A';
    for (const answer of [
      await update('cursors', { where: {}, ...RAISE, cursor: 'made-up' }),
      await update('cursors', { where: {}, ...RAISE, cursor: `${cursor.slice(0, -1)}${last}` }),
      await update('cursors', { where: { n: 1 }, ...RAISE, cursor }),
      await update('cursors', { where: {}, update: { $inc: { n: 2 } }, cursor }),
      await remove('cursors', { where: {}, cursor }),
      await post(`${at('cursors', 'other')}/update`, { where: {}, ...RAISE, cursor }),
      await update('wrong', { where: {}, ...RAISE, cursor }),
      await post(`${at('cursors')}/query`, { where: {}, cursor }),
    ])
      problemIn(answer, 'invalid_cursor');
    const rest = await update('cursors', { where: {}, ...RAISE, cursor });
    expect(rest.json()).toEqual({ matched: 2, changed: 2 });
  });

  it('needs both scopes, and a project that exists', async () => {
    const reader = await installation.client(['*'], ['docs:read']);
    const writer = await installation.client(['*'], ['docs:write']);
    for (const who of [reader, writer]) {
      problemIn(await post(`${at('wrong')}/update`, { where: {}, ...RAISE }, {}, who), 'forbidden');
      problemIn(await post(`${at('wrong')}/delete`, { where: {} }, {}, who), 'forbidden');
    }
    problemIn(await remove('never-made', { where: {} }), 'project_not_found');
    const dry = { where: {}, dry_run: true };
    problemIn(await remove('never-made', dry), 'project_not_found');
  });
});
