import { readFileSync } from 'node:fs';
import { DROPPED_MAX } from '@bundoc/shared/http/connection';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HEARTBEAT_MS, STALLED_BYTES, STALLED_MS } from '../packages/bundoc/src/service/change-feed.ts';
import { STREAMS_MAX } from '../packages/bundoc/src/work/service-shares.ts';
import { type Answer, type Call, call, Installation } from './support/installation.ts';

const page = readFileSync(new URL('../docs/documents.md', import.meta.url), 'utf8');
const PROJECT = '/v1/projects/tables';
const NOTES = `${PROJECT}/collections/notes`;
const DOCUMENTS = `${NOTES}/documents`;

let installation: Installation;
let token: string;
let reader: OpenapiReader;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  reader = new OpenapiReader((await ask('/openapi.json')).json());
});
afterAll(() => installation[Symbol.asyncDispose]());

const ask = (path: string, options: Call = {}) => call(installation.url, path, { token, ...options });
const put = (path: string, body = '{}', headers = {}) => ask(path, { method: 'PUT', body, headers });
const post = (path: string, body: unknown, headers = {}) =>
  ask(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers });
const patch = (path: string, type: string, body: unknown) =>
  ask(path, {
    method: 'PATCH',
    body: JSON.stringify(body),
    headers: { 'content-type': `application/${type}` },
  });
const remove = (path: string) => ask(path, { method: 'DELETE' });

/** A promise of a row that takes too long to provoke in a test: the operation must describe it. */
interface Described {
  readonly operationId: string;
  readonly code: string;
  readonly status: number;
}

/** For each row of the table, requests that produce all answers that the row names. */
const ROWS: Readonly<Record<string, { asked: () => Promise<Answer[]>; described?: readonly Described[] }>> = {
  'POST …/documents': {
    asked: async () => [
      await post(DOCUMENTS, { _id: 'created' }),
      await post(DOCUMENTS, {}),
      await post(DOCUMENTS, { _id: 'created' }),
    ],
  },
  'PUT …/documents/{id}': {
    asked: async () => [await put(`${DOCUMENTS}/put`), await put(`${DOCUMENTS}/put`)],
  },
  'PATCH …/documents/{id}': {
    asked: async () => {
      await put(`${DOCUMENTS}/patched`, '{"v":1}');
      const at = (path: string) => [{ op: 'test', path, value: 2 }];
      return [
        await patch(`${DOCUMENTS}/patched`, 'merge-patch+json', { w: 1 }),
        await patch(`${DOCUMENTS}/patched`, 'json-patch+json', [{ op: 'test', path: '/v', value: 1 }]),
        await patch(`${DOCUMENTS}/patched`, 'vnd.bundoc.update+json', { $inc: { w: 1 } }),
        await patch(`${DOCUMENTS}/patched`, 'json-patch+json', at('/v')),
        await patch(`${DOCUMENTS}/patched`, 'json-patch+json', at('/none')),
      ];
    },
  },
  'GET …/documents/{id}': {
    asked: async () => {
      const etag = String((await put(`${DOCUMENTS}/read`)).headers['etag']);
      const headers = { 'If-None-Match': etag };
      return [
        await ask(`${DOCUMENTS}/read`),
        await ask(`${DOCUMENTS}/read`, { headers }),
        await ask(`${DOCUMENTS}/none`),
      ];
    },
  },
  'DELETE …/documents/{id}': {
    asked: async () => {
      await put(`${DOCUMENTS}/deleted`);
      return [await remove(`${DOCUMENTS}/deleted`), await remove(`${DOCUMENTS}/deleted`)];
    },
  },
  'POST /v1/projects/{project}/batch': {
    asked: async () => {
      const one = { op: 'put', collection: 'notes', id: 'batched', document: {}, if_none_match: '*' };
      const other = { ...one, id: 'batched-too' };
      const answers = [
        await post(`${PROJECT}/batch`, { operations: [one, other] }),
        await post(`${PROJECT}/batch`, { operations: [one, other] }),
      ];
      expect(answers[1]?.json()['errors']).toHaveLength(2);
      return answers;
    },
  },
  'GET …/documents?limit=&cursor=&fields=&include=total&as_of=': {
    asked: async () => {
      const first = await ask(`${DOCUMENTS}?limit=1&fields=v,a.b&include=total`);
      const cursor = encodeURIComponent(String(first.json()['next_cursor']));
      return [first, await ask(`${DOCUMENTS}?cursor=${cursor}&fields=v,a.b`)];
    },
  },
  'PUT …/{collection}': {
    asked: async () => {
      const defined = `${PROJECT}/collections/defined`;
      const definition = JSON.stringify({ indexes: [{ fields: ['a'] }] });
      return [
        await put(defined, definition),
        await put(defined, '{"indexes":[]}'),
        await ask(defined),
        await remove(`${defined}/definition`),
      ];
    },
  },
  'DELETE …/{collection}/documents?confirm=': {
    asked: async () => {
      const dropped = `${PROJECT}/collections/dropped`;
      await put(`${dropped}/documents/a`);
      const path = `${dropped}/documents?confirm=dropped`;
      const answers = [await remove(path), await remove(path)];
      expect(answers.map((one) => one.json())).toEqual([
        { deleted: 1, more: true },
        { deleted: 0, more: false },
      ]);
      return answers;
    },
  },
  'POST …/{collection}/query': {
    asked: async () => {
      await put(`${PROJECT}/collections/long/documents/a`, `{"n":[${Array(450_000).fill(1).join()}]}`);
      const where = { $and: Array(49).fill({ n: { $not: { $gt: 5 } } }) };
      const selected = { field: 'n', op: 'sum' };
      return [
        await post(`${NOTES}/query`, { where: {} }),
        await post(`${NOTES}/count`, { where: {} }),
        await post(`${NOTES}/aggregate`, { where: {}, figures: { all: selected } }),
        await post(`${PROJECT}/collections/long/count`, { where }),
      ];
    },
  },
  'POST …/{collection}/update': {
    asked: async () => {
      const matched = `${PROJECT}/collections/matched`;
      for (const id of ['a', 'b']) await put(`${matched}/documents/${id}`, '{"v":1}');
      const where = { v: 1 };
      return [
        await post(`${matched}/update`, { where, update: { $inc: { w: 1 } }, limit: 1 }),
        await post(`${matched}/update`, { where, update: { $push: { v: 1 } } }),
        await post(`${matched}/delete`, { where }),
      ];
    },
  },
  'GET /v1/projects?limit=&cursor=&prefix=&include=summary': {
    asked: async () => {
      await put('/v1/projects/tables-too/collections/notes/documents/a');
      const first = await ask('/v1/projects?limit=1');
      const cursor = encodeURIComponent(String(first.json()['next_cursor']));
      const summaries = await ask(`/v1/projects?cursor=${cursor}&include=summary`);
      return [first, summaries];
    },
  },
  'GET /v1/projects/{project}': { asked: async () => [await ask(PROJECT)] },
  'DELETE /v1/projects/{project}?confirm={project}': {
    asked: async () => {
      const doomed = '/v1/projects/doomed';
      await put(`${doomed}/collections/notes/documents/a`);
      await installation.stopKms();
      const without = await remove(`${doomed}?confirm=doomed`);
      await installation.startKms();
      const destroy = () => remove(`${doomed}?confirm=doomed`);
      await expect.poll(async () => (await destroy()).status).toBe(200);
      // A repeated request gets the same answer.
      return [without, await destroy(), await ask(`${doomed}/collections/notes/documents/a`)];
    },
    described: [{ operationId: 'readDocument', code: 'project_deleting', status: 409 }],
  },
  'GET /v1/projects/{project}/changes?since=&collection=&include=doc&limit=&wait=': {
    asked: async () => [
      await ask(`${PROJECT}/changes?limit=2&collection=notes&include=doc`),
      await ask(`${PROJECT}/changes?since=now&wait=1`),
    ],
    described: [{ operationId: 'listChanges', code: 'position_gone', status: 410 }],
  },
};

describe('the table of calls in docs/documents.md', () => {
  const rows = [...page.matchAll(/^\| (`.+?`.*?) \| (.+?) \| (.+?) \|$/gm)].map(([, what, , answers]) => ({
    name: String(what?.split('`')[1]),
    answers: String(answers),
  }));

  it('has a row for each operation, and no other row', () => {
    expect(rows.map(({ name }) => name)).toEqual(Object.keys(ROWS));
  });

  it.each(rows)('names the statuses, headers and members that are sent: $name', async ({ name, answers }) => {
    const { asked, described = [] } = ROWS[name] as (typeof ROWS)[string];
    const sent = await asked();
    const statuses = new Set([...answers.matchAll(/\b[1-5]\d\d\b/g)].map(([status]) => Number(status)));
    expect(new Set([...sent, ...described].map(({ status }) => status))).toEqual(statuses);
    for (const { operationId, code, status } of described) {
      const operation = reader.operations.find((one) => one.operationId === operationId);
      expect(operation === undefined ? [] : reader.codesOf(operation, status)).toContain(code);
    }
    const names = new Set([...answers.matchAll(/`([\w-]+)`/g)].map(([, one]) => String(one)));
    const parts = sent.flatMap((answer) => {
      const body = answer.text === '' ? {} : answer.json();
      // The summary of a project is within its entry.
      const ofProjects = JSON.stringify(body['projects'] ?? '').matchAll(/"(\w+)":/g);
      const members = [...Object.keys(body), ...Array.from(ofProjects, ([, member]) => String(member))];
      return [...Object.keys(answer.headers), ...members, String(body['code'])];
    });
    const known = [...parts, ...described.map(({ code }) => code), 'if-none-match', 'test'];
    for (const one of names) expect(known).toContain(/[A-Z]/.test(one) ? one.toLowerCase() : one);
    // An operation that writes or returns a document names its tag.
    if (names.has('ETag')) {
      const tagged = sent.filter(({ status }) => status === 200 || status === 201);
      expect(tagged.map(({ headers }) => typeof headers['etag'])).toEqual(tagged.map(() => 'string'));
    }
  });
});

/** The number before or after certain words of the page. */
function numberIn(pattern: RegExp): number {
  const number = pattern.exec(page)?.[1];
  if (number === undefined) throw new Error(`the page has no text that matches ${pattern}`);
  return Number(number.replaceAll(',', ''));
}

const MIB = 1_048_576;

describe('the limits in docs/documents.md', () => {
  const operations = (count: number) => ({
    operations: Array.from({ length: count }, (_, n) => ({
      op: 'put',
      collection: 'limits',
      id: `${n}`,
      document: {},
    })),
  });
  const nested = (depth: number) => `${'{"a":'.repeat(depth - 1)}{}${'}'.repeat(depth - 1)}`;
  const bodyOf = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`;
  const batchOf = (bytes: number) => `{"operations":[]${' '.repeat(bytes - 17)}}`;

  it.each<[string, RegExp, (limit: number) => Promise<Answer>, number, number]>([
    ['operations of a batch', /up to (\d+) writes/, (n) => post(`${PROJECT}/batch`, operations(n)), 200, 400],
    [
      'bytes of an id',
      /Ids have 1 to (\d+) bytes/,
      (n) => put(`${DOCUMENTS}/${'%C3%A9'.repeat(n / 2)}${n % 2 ? 'x' : ''}`),
      201,
      400,
    ],
    [
      'characters of a collection',
      /\[A-Za-z0-9_-\]\{1,(\d+)\}/,
      (n) => put(`${PROJECT}/collections/${'c'.repeat(n)}/documents/a`),
      201,
      400,
    ],
    [
      'characters of a project',
      /\[a-z0-9-\]\{1,(\d+)\}/,
      (n) => put(`/v1/projects/${'p'.repeat(n)}/collections/notes/documents/a`),
      201,
      400,
    ],
    ['depth of a body', /nest at most (\d+) deep/, (n) => put(`${DOCUMENTS}/deep`, nested(n)), 201, 400],
    [
      'seconds of a long poll',
      /wait=<seconds>` \(at most (\d+)\)/,
      (n) => ask(`${PROJECT}/changes?wait=${n}`),
      200,
      400,
    ],
  ])('are the enforced ones: %s', async (_what, pattern, send, taken, refused) => {
    const limit = numberIn(pattern);
    expect((await send(limit)).status).toBe(taken);
    expect((await send(limit + 1)).status).toBe(refused);
  });

  it('are the enforced ones: bytes of a body and of a batch', async () => {
    const body = numberIn(/Bodies have at most (\d+) MiB/) * MIB;
    expect((await put(`${DOCUMENTS}/large`, bodyOf(body))).status).toBe(201);
    expect((await put(`${DOCUMENTS}/large`, bodyOf(body + 1))).status).toBe(413);
    const batch = numberIn(/Its body has at most (\d+) MiB/) * MIB;
    // An empty batch is refused with 400 once it has been read.
    expect((await post(`${PROJECT}/batch`, batchOf(batch))).status).toBe(400);
    expect((await post(`${PROJECT}/batch`, batchOf(batch + 1))).status).toBe(413);
  });

  it('match the configuration of the server where they concern memory', () => {
    expect(numberIn(/More than (\d+) such requests close the connection/)).toBe(DROPPED_MAX);
    expect(numberIn(/at most (\d+) streams and long polls per project/)).toBe(STREAMS_MAX / 8);
    expect(numberIn(/, (\d+) per token/)).toBe(STREAMS_MAX / 4);
    expect(numberIn(/\(429\) and ([\d,]+) in total/)).toBe(STREAMS_MAX);
    expect(numberIn(/`heartbeat` every (\d+) seconds/) * 1_000).toBe(HEARTBEAT_MS);
    expect(numberIn(/takes less than (\d+) KiB in \d+ seconds/) * 1_024).toBe(STALLED_BYTES);
    expect(numberIn(/takes less than \d+ KiB in (\d+) seconds/) * 1_000).toBe(STALLED_MS);
  });

  it.each([
    ['a name that begins with `_`', '{"_x":1}'],
    ['a duplicate name', '{"a":1,"a":2}'],
    ['`__proto__`', '{"__proto__":1}'],
  ])('refuse names as the page says: %s', async (_what, body) => {
    expect(page).toContain('Names that begin with `_`, duplicate names and `__proto__` are refused.');
    expect((await put(`${DOCUMENTS}/names`, body)).status).toBe(400);
  });
});

describe('what docs/documents.md says about answers', () => {
  it('a repeated query parameter is 400 with `is given twice`', async () => {
    expect(page).toContain('a repeated one is 400 `is given twice`');
    const answer = await ask(`${DOCUMENTS}?limit=1&limit=1`);
    expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('is given twice')]);
  });

  it('a weak tag never matches in `If-Match`, and a different request with the same key is 422', async () => {
    expect(page).toContain('a tag with `W/` never matches (412)');
    const path = `${DOCUMENTS}/weak`;
    const etag = String((await put(path)).headers['etag']);
    expect((await put(path, '{}', { 'If-Match': `W/${etag}` })).status).toBe(412);
    expect(page).toContain(
      'The same request gets the first answer. A different request with the same key gets 422.',
    );
    const headers = { 'Idempotency-Key': 'one' };
    const first = await post(DOCUMENTS, { v: 1 }, headers);
    const again = await post(DOCUMENTS, { v: 1 }, headers);
    expect([again.status, again.text]).toEqual([first.status, first.text]);
    expect((await post(DOCUMENTS, { v: 2 }, headers)).status).toBe(422);
  });
});
