import { randomInt } from 'node:crypto';
import { problemSchema } from '@bundoc/shared/contract/problem';
import { runs } from '@bundoc/shared/testing/long';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';
import {
  bytesOf,
  exchange,
  exchangeStalled,
  mutate,
  type RawAnswer,
  type RawRequest,
  randomsOf,
} from './support/raw-requests.ts';

/**
 * The time for each service: ten minutes with `LONG_TESTS=1`. `FUZZ_SEED` repeats the seed that a failure
 * names.
 */
const MS_MAX = runs(2_000, 600_000);
const SEED = Number(process.env['FUZZ_SEED'] ?? randomInt(1, 2_147_483_646));

/** Long enough for a busy machine to receive a complete request. */
const REQUEST_TIMEOUT_MS = 1_000;
const STALLED_AT_ONCE = 32;
/** The fewest connections, on a machine that is too busy for more in the time. */
const ROUNDS_MIN = 50;
const STALLED_MIN = 2 * STALLED_AT_ONCE;

let installation: Installation;
/** An installation with a short request timeout. */
let hurried: Installation;
beforeAll(async () => {
  // The fuzzer reads and creates as fast as it can.
  const kmsEnvironment = { BUNKMS_READS_PER_TOKEN: '0', BUNKMS_CREATIONS_PER_TOKEN: '0' };
  installation = await Installation.start({ kmsEnvironment });
  hurried = await Installation.start({ http: { requestTimeoutMs: REQUEST_TIMEOUT_MS } });
});
afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  await hurried[Symbol.asyncDispose]();
});

type Random = (below: number) => number;

/** A request, and the status of its answer after the earlier requests of the connection. */
interface Step {
  readonly request: RawRequest;
  readonly status: number;
}

interface Round {
  /** Valid requests with their statuses. */
  readonly before: readonly Step[];
  /** The request to mutate. */
  readonly spoiled: RawRequest;
  /** Valid requests after the mutated one. Their outcome depends on the mutation. */
  readonly behind: readonly RawRequest[];
}

/** A service, its requests, and its expected content at the end. */
interface Service {
  readonly port: number;
  make(round: number, random: Random): Round;
  /** Records what the answers confirm as written. */
  note(answers: readonly RawAnswer[], round: Round): void;
  /** What exists although no answer confirms it, or is missing although an answer does. */
  differences(): Promise<string[]>;
}

/**
 * Sends rounds until time is up. Everything before the mutated request is answered normally, every refusal is
 * a problem document, and the server ends the connection.
 */
async function fuzz(service: Service, seed: number): Promise<{ rounds: number; refused: number }> {
  const random = randomsOf(seed);
  const until = performance.now() + MS_MAX;
  let [rounds, refused] = [0, 0];
  for (; performance.now() < until || rounds < ROUNDS_MIN; rounds++) {
    const round = service.make(rounds, random);
    const mutation = mutate(round.spoiled, random);
    const before = round.before.map(({ request }) => bytesOf(request));
    const bytes = mutation.bytes + round.behind.map(bytesOf).join('');
    const where = `seed ${seed}, round ${rounds}, ${mutation.name}: ${JSON.stringify(mutation.bytes.replace(/Bearer [^\r]*/, 'Bearer …'))}`;
    let answers: RawAnswer[] = [];
    try {
      answers = await exchange(service.port, before, bytes, random);
      expect(answers.slice(0, round.before.length).map(({ status }) => status)).toEqual(
        round.before.map(({ status }) => status),
      );
      // The mutated request has its own answer, unless the mutation removed everything.
      if (mutation.bytes.trim() !== '') expect(answers.length).toBeGreaterThan(round.before.length);
      expect(answers.length).toBeLessThanOrEqual(round.before.length + round.behind.length + 2);
      for (const { status, headers, body } of answers) {
        if (status < 400) continue;
        refused++;
        expect(headers['content-type']).toBe('application/problem+json; charset=utf-8');
        expect(problemSchema.parse(JSON.parse(body)).status).toBe(status);
        expect([400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 431, 501, 505]).toContain(status);
      }
      service.note(answers, round);
    } catch (error) {
      throw new Error(`${where} → ${JSON.stringify(answers)}`, { cause: error });
    }
  }
  return { rounds, refused };
}

/**
 * Sends rounds in which the last requests stall at some byte. Earlier requests are answered normally. The
 * stalled one gets 408. It has no effect although its rest arrives, and nor do the requests after it.
 */
async function stall(service: Service, seed: number): Promise<number> {
  const random = randomsOf(seed);
  const until = performance.now() + MS_MAX / 2;
  const one = async (number: number): Promise<void> => {
    const round = service.make(number, random);
    const before = round.before.map(({ request }) => bytesOf(request));
    const spoiled = bytesOf(round.spoiled);
    // Half of them stall within the body.
    const head = spoiled.indexOf('\r\n\r\n') + 4;
    const at = random(2) === 0 ? head + random(spoiled.length - head) : 1 + random(head - 1);
    const bytes = spoiled + round.behind.map(bytesOf).join('');
    let answers: RawAnswer[] = [];
    try {
      answers = await exchangeStalled(service.port, before, bytes, at);
      expect(answers.map(({ status }) => status)).toEqual([...round.before.map(({ status }) => status), 408]);
      expect(problemSchema.parse(JSON.parse(answers.at(-1)?.body ?? '')).code).toBe('request_timeout');
      service.note(answers, round);
    } catch (error) {
      const where = `seed ${seed}, round ${number}, stalled at ${at}`;
      throw new Error(`${where} → ${JSON.stringify(answers)}`, { cause: error });
    }
  };
  let rounds = 0;
  for (; performance.now() < until || rounds < STALLED_MIN; rounds += STALLED_AT_ONCE)
    await Promise.all(Array.from({ length: STALLED_AT_ONCE }, (_, n) => one(rounds + n)));
  return rounds;
}

function differencesOf(found: ReadonlySet<string>, expected: ReadonlySet<string>): string[] {
  return [
    ...[...found].filter((one) => !expected.has(one)).map((one) => `refused: ${one}`),
    ...[...expected].filter((one) => !found.has(one)).map((one) => `missing: ${one}`),
  ];
}

async function bundocOf(installation: Installation): Promise<Service> {
  const token = await installation.client(['fuzz']);
  const headers = [`Authorization: Bearer ${token}`];
  const json = [...headers, 'Content-Type: application/json'];
  const documents = '/v1/projects/fuzz/collections/notes/documents';
  const put = (id: string, n: number): RawRequest => {
    return { method: 'PUT', path: `${documents}/${id}`, headers: json, body: `{"n":${n}}` };
  };
  const get = (id: string): RawRequest => ({ method: 'GET', path: `${documents}/${id}`, headers });
  const remove = (id: string): RawRequest => ({ method: 'DELETE', path: `${documents}/${id}`, headers });
  const batch = (id: string): RawRequest => {
    const operations = [0, 1].map((n) => ({
      op: 'create',
      collection: 'notes',
      id: `${id}-${n}`,
      document: { n },
    }));
    return {
      method: 'POST',
      path: '/v1/projects/fuzz/batch',
      headers: json,
      body: JSON.stringify({ operations }),
    };
  };
  await call(installation.url, `${documents}/first`, { method: 'PUT', token, body: '{"n":0}' });

  /** Every document that an answer confirmed. */
  const expected = new Set(['notes/first']);
  return {
    port: Number(new URL(installation.url).port),
    make: (n, random) => {
      const before: Step[][] = [
        [{ request: put(`a${n}`, n), status: 201 }],
        [
          { request: put(`b${n}`, n), status: 201 },
          { request: get(`b${n}`), status: 200 },
          { request: remove(`b${n}`), status: 204 },
          { request: get(`b${n}`), status: 404 },
        ],
        [{ request: batch(`c${n}`), status: 200 }],
        [{ request: remove(`none${n}`), status: 404 }],
        [],
      ];
      return {
        before: [...(before[random(5)] as Step[]), ...(before[random(4) === 0 ? 3 : 4] as Step[])],
        spoiled: random(3) === 0 ? batch(`s${n}`) : put(`s${n}`, n),
        behind: [[put(`z${n}`, n)], [get(`s${n}`), put(`z${n}`, n)], []][random(3)] as RawRequest[],
      };
    },
    note: (answers, { before }) => {
      for (const [at, { status, body }] of answers.entries()) {
        const removed = before[at]?.request.method === 'DELETE' && status === 204;
        if (removed) expected.delete(`notes/${before[at]?.request.path.split('/').at(-1)}`);
        if (status >= 300 || status === 204 || before[at]?.request.method === 'GET') continue;
        const answer = JSON.parse(body) as { results?: { _id: string; _collection: string }[] };
        for (const { _id, _collection } of answer.results ?? [answer as never])
          expected.add(`${_collection}/${_id}`);
      }
    },
    differences: async () => {
      const found = new Set<string>();
      for (let since = ''; ; ) {
        const page = (
          await call(installation.url, `/v1/projects/fuzz/changes?limit=500${since}`, { token })
        ).json() as {
          changes: { _id: string; _collection: string; deleted?: boolean }[];
          since: string;
          more?: boolean;
        };
        for (const { _id, _collection, deleted } of page.changes)
          if (deleted !== true) found.add(`${_collection}/${_id}`);
        if (page.more !== true) break;
        since = `&since=${encodeURIComponent(page.since)}`;
      }
      return differencesOf(found, expected);
    },
  };
}

async function bunkmsOf(installation: Installation): Promise<Service> {
  const token = await installation.issue({
    sub: 'fuzz',
    typ: 'service',
    scope: ['kms:create_key', 'kms:read_key', 'kms:export_key'],
    keys: ['raw-*'],
  });
  const headers = [`Authorization: Bearer ${token}`];
  const create = (name: string): RawRequest => ({
    method: 'POST',
    path: '/v1/keys',
    headers: [...headers, 'Content-Type: application/json'],
    body: JSON.stringify({ name, type: 'aes-256' }),
  });
  const get = (name: string): RawRequest => ({ method: 'GET', path: `/v1/keys/${name}`, headers });
  const expected = new Set<string>();
  return {
    port: Number(new URL(installation.kms.internalUrl).port),
    make: (n, random) => {
      const before: Step[][] = [
        [
          { request: get(`raw-a${n}`), status: 404 },
          { request: create(`raw-a${n}`), status: 201 },
          { request: get(`raw-a${n}`), status: 200 },
        ],
        [{ request: create(`raw-a${n}`), status: 201 }],
        [{ request: get(`raw-none${n}`), status: 404 }],
        [],
      ];
      return {
        before: before[random(4)] as Step[],
        spoiled: create(`raw-s${n}`),
        behind: [[create(`raw-z${n}`)], [get(`raw-s${n}`)], []][random(3)] as RawRequest[],
      };
    },
    note: (answers) => {
      for (const { status, body } of answers)
        if (status === 201) expected.add((JSON.parse(body) as { name: string }).name);
    },
    differences: async () => {
      const found = new Set<string>();
      for (let cursor = ''; ; ) {
        const page = (
          await call(installation.kms.internalUrl, `/v1/keys?limit=500${cursor}`, { token })
        ).json() as { keys: { name: string }[]; next_cursor?: string };
        for (const { name } of page.keys) found.add(name);
        if (page.next_cursor === undefined) break;
        cursor = `&cursor=${encodeURIComponent(page.next_cursor)}`;
      }
      return differencesOf(found, expected);
    },
  };
}

describe.each([
  ['Bundoc', bundocOf],
  ['BunKMS', bunkmsOf],
])('%s', (name, serviceOf) => {
  it(
    'answers every raw request, writes nothing that it refuses, and loses no acknowledged write',
    async () => {
      const service = await serviceOf(installation);
      const { rounds, refused } = await fuzz(service, SEED);
      expect(await service.differences(), `seed ${SEED}`).toEqual([]);
      process.stderr.write(`${name}: seed ${SEED}, ${rounds} connections, ${refused} refusals\n`);
      // Without a refusal, the mutations would show nothing.
      expect(refused).toBeGreaterThan(ROUNDS_MIN / 10);
    },
    MS_MAX + 400_000,
  );

  it(
    'answers 408 to every stalled request, which writes nothing although its rest arrives',
    async () => {
      const service = await serviceOf(hurried);
      const rounds = await stall(service, SEED);
      expect(await service.differences(), `seed ${SEED}`).toEqual([]);
      process.stderr.write(`${name}: seed ${SEED}, ${rounds} connections that stood still\n`);
    },
    MS_MAX + 400_000,
  );
});
