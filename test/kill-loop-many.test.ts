import { randomInt } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runs } from '@bundoc/shared/testing/long';
import { PATIENT_MS, startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Acknowledged } from './support/acknowledged.ts';
import { startBundocProcess } from './support/bundoc-process.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

const SEED = Number(process.env['KILL_SEED'] ?? randomInt(1, 2_147_483_646));
const KILLS = Number(process.env['KILL_ROUNDS'] ?? runs(3, 500));
/** On the simulated disk, restarts.test.ts runs 100 with writes in between. */
const RESTARTS = runs(2, 100);
const PROJECTS = runs(100, 1_000);
const WORKERS = 32;
/** Projects without a pending write that are still read again after each kill. */
const LOOKED_AT_AGAIN = 40;
/** Small enough to fill and free the log repeatedly. */
const LOG_BYTES = 67_108_864;
const PAD_BYTES_MAX = 30_000;
/** Writes that are acknowledged before each kill. */
const ACKNOWLEDGED_MIN = 100;

let seed = SEED;
function random(): number {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed / 2_147_483_647;
}

/** Two documents that are written together, and one alone. One writer at a time. */
interface Project {
  readonly name: string;
  readonly pair: readonly [Acknowledged, Acknowledged];
  readonly single: Acknowledged;
}
const projects: readonly Project[] = Array.from({ length: PROJECTS }, (_, at) => ({
  name: `p${at}`,
  pair: [new Acknowledged(), new Acknowledged()],
  single: new Acknowledged(),
}));
const figures = { kills: 0, acknowledged: 0, refused: 0, unanswered: 0, read: 0 };
let values = 0;

let installation: Installation;
let token: string;
let environment: Record<string, string>;
beforeAll(async () => {
  installation = await Installation.start({ isOnFiles: true });
  token = await installation.client();
  await installation.stopBundoc();
  environment = {
    ...PATIENT_BUNDOC,
    BUNDOC_DATA_DIR: installation.dataDir,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
    BUNDOC_LOG_BYTES: String(LOG_BYTES),
  };
});
afterAll(() => installation[Symbol.asyncDispose]());

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly rev: string | undefined;
}

/** @returns undefined when the process died before it answered. */
async function send(url: string, path: string, method = 'GET', body?: string): Promise<Reply | undefined> {
  const headers: Record<string, string> = { authorization: `Bearer ${token}` };
  if (body !== undefined) headers['content-type'] = 'application/json';
  const init = { method, headers, signal: AbortSignal.timeout(PATIENT_MS) };
  let response: Response;
  try {
    response = await fetch(`${url}/v1/projects/${path}`, body === undefined ? init : { ...init, body });
  } catch (error) {
    if ((error as Error).name === 'TimeoutError') throw error;
    return undefined;
  }
  // A truncated answer counts as an answer.
  const text = await response.text().catch(() => '');
  return { status: response.status, text, rev: response.headers.get('etag')?.slice(1, -1) };
}

/** Files of the log's segments. */
const segmentFiles = () =>
  readdirSync(join(installation.dataDir, 'log')).filter((name) => /^\d{8}$/.test(name)).length;
const documentPath = (project: string, id: string) => `${project}/collections/notes/documents/${id}`;

/** @returns false when the process has died. */
async function write({ name, pair, single }: Project): Promise<boolean> {
  const body = `{"v":${++values},"pad":"${'x'.repeat(Math.floor(random() ** 4 * PAD_BYTES_MAX))}"}`;
  const isPair = random() < 0.4;
  const states = isPair ? pair : [single];
  const begun = states.map((state) => state.begin(body));
  const put = (id: string) => `{"op":"put","collection":"notes","id":"${id}","document":${body}}`;
  const reply = isPair
    ? await send(url, `${name}/batch`, 'POST', `{"operations":[${put('a')},${put('b')}]}`)
    : await send(url, documentPath(name, 'c'), 'PUT', body);
  if (reply === undefined) {
    figures.unanswered++;
    return false;
  }
  // The log is small: where the processors are busy, it is not freed within the 5 s that a write waits.
  if (reply.status === 503 && JSON.parse(reply.text).code === 'overloaded') {
    for (const one of begun) one.refused();
    figures.refused++;
    return true;
  }
  if (reply.status !== 200 && reply.status !== 201)
    throw new Error(`a write to ${name} was answered ${reply.status} ${reply.text.slice(0, 300)}`);
  for (const one of begun) one.acknowledged();
  figures.acknowledged++;
  return true;
}
let url = '';

/** Writes to its own projects at random until the process has died. */
async function work(worker: number, touched: Set<Project>): Promise<void> {
  const own = projects.filter((_, at) => at % WORKERS === worker);
  for (;;) {
    const project = own[Math.floor(random() * own.length)] as Project;
    touched.add(project);
    if (!(await write(project))) return;
  }
}

async function verify(some: Iterable<Project>): Promise<void> {
  const rest = [...some].values();
  await Promise.all(
    Array.from({ length: WORKERS }, async () => {
      for (const { name, pair, single } of rest) {
        const isSettled: (string | undefined)[] = [];
        for (const [id, state] of [
          ['a', pair[0]],
          ['b', pair[1]],
          ['c', single],
        ] as const) {
          const reply = await send(url, documentPath(name, id));
          if (reply === undefined) throw new Error('no answer, although the process was not killed');
          if (reply.status !== 200 && reply.status !== 404)
            throw new Error(`${name}/${id} was answered ${reply.status} ${reply.text.slice(0, 300)}`);
          const text = reply.status === 200 ? reply.text : undefined;
          state.settle(`${name}/${id}`, text, text === undefined ? undefined : reply.rev);
          isSettled.push(state.known?.body);
          figures.read++;
        }
        expect(isSettled[0], `the batch of ${name} is whole`).toBe(isSettled[1]);
      }
    }),
  );
}

it(`killed ${KILLS} times under load on ${PROJECTS} projects, Bundoc keeps every acknowledged write and only whole batches`, {
  timeout: 300_000 + KILLS * 6_000,
}, async () => {
  process.stdout.write(`kill loop of many projects: KILL_SEED=${SEED}\n`);
  const touched = new Set<Project>();
  const logFiles: number[] = [];
  for (let round = 0; figures.kills < KILLS; round++) {
    await using bundoc = await startBundocProcess(environment);
    url = bundoc.url;
    // Every third process is killed while it may still recover. The next round checks its content.
    const isKilledEarly = round % 3 === 2;
    if (round === 0) {
      const all = projects.values();
      await Promise.all(
        Array.from({ length: WORKERS }, async () => {
          for (const one of all) expect(await write(one)).toBe(true);
        }),
      );
      await verify(projects);
    } else if (!isKilledEarly) {
      for (let n = 0; n < LOOKED_AT_AGAIN; n++)
        touched.add(projects[Math.floor(random() * PROJECTS)] as Project);
      await verify(touched);
      touched.clear();
    }
    const enough = figures.acknowledged + ACKNOWLEDGED_MIN;
    const working = startInBackground(
      Promise.all(Array.from({ length: WORKERS }, (_, n) => work(n, touched))),
    );
    await Promise.race([sleep(isKilledEarly ? random() * 100 : 100 + random() * 900), working]);
    if (!isKilledEarly)
      await Promise.race([
        expect.poll(() => figures.acknowledged, { interval: 5 }).toBeGreaterThan(enough),
        working,
      ]);
    await bundoc.kill();
    figures.kills++;
    await working;
    expect(bundoc.log).not.toMatch(
      /does not open|storage of a project failed|cannot be opened|could not be freed|folders of projects failed/,
    );
    logFiles.push(segmentFiles());
  }
  await using last = await startBundocProcess(environment);
  url = last.url;
  await verify(projects);
  expect(await last.stop()).toBe(0);
  process.stdout.write(`kill loop of many projects: ${JSON.stringify(figures)}\n`);
  expect(figures.acknowledged).toBeGreaterThan(PROJECTS + figures.kills * 10);
  expect(figures.refused).toBeLessThan(figures.acknowledged / 10);
  // The log stays within its bound after any number of kills.
  expect(Math.max(...logFiles)).toBeLessThanOrEqual(LOG_BYTES / 16_777_216);
});

it(`restarted ${RESTARTS} times in a row, Bundoc uses no more log space than before`, async () => {
  await using again = await Installation.start({ isOnFiles: true });
  const client = await again.client();
  const put = async (project: string, id: string) => {
    const path = `/v1/projects/${documentPath(project, id)}`;
    const answer = await call(again.url, path, { method: 'PUT', token: client, body: `{"v":"${id}"}` });
    expect(answer.status).toBe(201);
  };
  const state = async () => {
    const metrics = await again.metrics();
    const gauge = (name: string) => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(metrics)?.[1]);
    const files = readdirSync(join(again.dataDir, 'log')).filter((name) => /^\d{8}$/.test(name)).length;
    return { files, live: gauge('bundoc_log_segments_live'), free: gauge('bundoc_log_segments_free') };
  };
  for (let n = 0; n < 30; n++) await put(`p${n}`, 'first');
  const before = await state();
  const seen: Awaited<ReturnType<typeof state>>[] = [];
  for (let restart = 0; restart < RESTARTS; restart++) {
    await again.stopBundoc();
    await again.startBundoc();
    seen.push(await state());
  }
  process.stdout.write(`restarts: ${JSON.stringify({ before, last: seen.at(-1) })}\n`);
  // The first restart may begin a segment.
  expect(Math.max(...seen.map(({ files }) => files))).toBeLessThanOrEqual(before.files + 1);
  expect(Math.max(...seen.map(({ live }) => live))).toBeLessThanOrEqual(before.live + 1);
  for (let n = 0; n < 30; n++) {
    const answer = await call(again.url, `/v1/projects/${documentPath(`p${n}`, 'first')}`, { token: client });
    expect(answer.status).toBe(200);
  }
});
