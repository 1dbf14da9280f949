import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { runs } from '@bundoc/shared/testing/long';
import { PATIENT_MS, startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Acknowledged } from './support/acknowledged.ts';
import { startBundocProcess } from './support/bundoc-process.ts';
import { Installation, PATIENT_BUNDOC } from './support/installation.ts';

/**
 * `KILL_SEED=…` repeats a run, and `KILL_ROUNDS=…` lengthens it, as far as the timing of processes can be
 * repeated.
 */
const SEED = Number(process.env['KILL_SEED'] ?? randomInt(1, 2_147_483_646));
const KILLS = Number(process.env['KILL_ROUNDS'] ?? runs(3, 22));
const KILLS_MIN = Math.min(runs(3, 20), KILLS);
/** A slow machine stops at the minimum of kills. */
const TIME_GOAL_MS = 40_000;
const PROJECTS = ['alpha', 'beta', 'gamma'];
const WORKERS = 24;
const IDS_PER_WORKER = 8;
/** The fewest acknowledged writes of each process that is not killed during recovery. */
const ACKNOWLEDGED_MIN = 20;

let seed = SEED;
function random(): number {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed / 2_147_483_647;
}
const oneOf = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;

interface Document {
  readonly project: string;
  readonly id: string;
  readonly state: Acknowledged;
  /** The previous revision, for a compare-and-set that must be refused. */
  staleRev: string | undefined;
}

/** A write with an idempotency key, to be repeated. `rev` is from its first answer, if one arrived. */
interface Repeatable {
  readonly document: Document;
  readonly key: string;
  readonly body: string;
  rev: string | undefined;
}

/** A counter that many workers increment by compare-and-set. */
interface Counter {
  readonly project: string;
  /** The highest acknowledged count, and the number of answers lost since. */
  acknowledged: number;
  unanswered: number;
  readonly counts: Set<number>;
}

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly rev: string | undefined;
}

const documents: Document[] = Array.from({ length: WORKERS * IDS_PER_WORKER }, (_, n) => ({
  project: PROJECTS[n % PROJECTS.length] as string,
  id: `d${n}`,
  state: new Acknowledged(),
  staleRev: undefined,
}));
const counters: Counter[] = PROJECTS.map((project) => ({
  project,
  acknowledged: 0,
  unanswered: 0,
  counts: new Set(),
}));
const repeatables: Repeatable[] = [];
const figures = { kills: 0, acknowledged: 0, unanswered: 0, landed: 0, repeated: 0 };
let values = 0;

let installation: Installation;
let token: string;
let environment: Record<string, string>;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client(PROJECTS);
  await installation.stopBundoc();
  environment = {
    ...PATIENT_BUNDOC,
    BUNDOC_DATA_DIR: installation.dataDir,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  };
});
afterAll(() => installation[Symbol.asyncDispose]());

const pathOf = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;

/** @returns undefined when the process died before it answered. A truncated answer counts as an answer. */
async function send(
  url: string,
  path: string,
  init: { method?: string; body?: string; headers?: Record<string, string> } = {},
): Promise<Reply | undefined> {
  const headers: Record<string, string> = { authorization: `Bearer ${token}`, ...init.headers };
  if (init.body !== undefined) headers['content-type'] = 'application/json';
  let response: Response;
  try {
    response = await fetch(url + path, { ...init, headers, signal: AbortSignal.timeout(PATIENT_MS) });
  } catch (error) {
    if ((error as Error).name === 'TimeoutError') throw error;
    return undefined;
  }
  const text = await response.text().catch(() => '');
  return { status: response.status, text, rev: response.headers.get('etag')?.slice(1, -1) };
}

async function answered(url: string, path: string): Promise<Reply> {
  const reply = await send(url, path);
  if (reply === undefined) throw new Error(`no answer to ${path}, although the process was not killed`);
  return reply;
}

const unexpected = (what: string, { status, text }: Reply) =>
  new Error(`${what} was answered ${status} ${text.slice(0, 500)}`);

/**
 * A unique body of a random size, mostly small. Those of one project are large, so that it reaches
 * checkpoints.
 */
function newBody(project: string): string {
  const bytesMax = project === PROJECTS[0] ? 600_000 : 60_000;
  const pad = 'x'.repeat(Math.floor(random() ** 6 * bytesMax));
  return `{"v":${++values},"big":12345678901234567890.10,"pad":"${pad}"}`;
}

async function put(url: string, document: Document): Promise<boolean> {
  const { project, id, state } = document;
  const body = newBody(project);
  const headers: Record<string, string> = {};
  const rev = state.known?.rev;
  const dice = random();
  if (rev !== undefined && dice < 0.3) headers['if-match'] = `"${rev}"`;
  else if (document.staleRev !== undefined && dice < 0.4) headers['if-match'] = `"${document.staleRev}"`;
  const isStale = document.staleRev !== undefined && headers['if-match'] === `"${document.staleRev}"`;
  let repeatable: Repeatable | undefined;
  if (dice > 0.7) {
    repeatable = { document, key: `key-${values}`, body, rev: undefined };
    headers['idempotency-key'] = repeatable.key;
    repeatables.push(repeatable);
  }
  const write = state.begin(body);
  const reply = await send(url, pathOf(project, id), { method: 'PUT', body, headers });
  if (reply === undefined) {
    figures.unanswered++;
    return false;
  }
  if (isStale && reply.status === 412) {
    write.refused();
    return true;
  }
  if (isStale || (reply.status !== 200 && reply.status !== 201)) throw unexpected(`PUT ${id}`, reply);
  expect(reply.rev).toMatch(/^[0-9a-f]{24}$/);
  write.acknowledged(reply.rev);
  document.staleRev = rev;
  if (repeatable !== undefined) repeatable.rev = reply.rev;
  figures.acknowledged++;
  return true;
}

async function remove(url: string, { project, id, state }: Document): Promise<boolean> {
  const mayBeAbsent = state.possible.some(({ body }) => body === undefined);
  const mayBeThere = state.possible.some(({ body }) => body !== undefined);
  const write = state.begin(undefined);
  const reply = await send(url, pathOf(project, id), { method: 'DELETE' });
  if (reply === undefined) {
    figures.unanswered++;
    return false;
  }
  if (!(reply.status === 204 && mayBeThere) && !(reply.status === 404 && mayBeAbsent))
    throw unexpected(`DELETE ${id}`, reply);
  write.acknowledged();
  figures.acknowledged++;
  return true;
}

async function countUp(url: string, counter: Counter): Promise<boolean> {
  const path = pathOf(counter.project, 'counter');
  const read = await send(url, path);
  if (read === undefined) return false;
  if (read.status !== 200 && read.status !== 404) throw unexpected('GET counter', read);
  const count = read.status === 404 ? 1 : countOf(read.text) + 1;
  const headers: Record<string, string> =
    read.status === 404 ? { 'if-none-match': '*' } : { 'if-match': `"${read.rev}"` };
  counter.unanswered++;
  const reply = await send(url, path, { method: 'PUT', body: `{"count":${count}}`, headers });
  if (reply === undefined) return false;
  counter.unanswered--;
  if (reply.status === 412) return true;
  if (reply.status !== 200 && reply.status !== 201) throw unexpected('PUT counter', reply);
  expect(counter.counts, `count ${count} of ${counter.project} was given twice`).not.toContain(count);
  counter.counts.add(count);
  counter.acknowledged = Math.max(counter.acknowledged, count);
  figures.acknowledged++;
  return true;
}

const countOf = (text: string) => (JSON.parse(text) as { count: number }).count;

/** Writes until the process has died. */
async function work(url: string, worker: number): Promise<void> {
  const own = documents.slice(worker * IDS_PER_WORKER, (worker + 1) * IDS_PER_WORKER);
  for (;;) {
    const dice = random();
    const document = oneOf(own);
    let alive: boolean;
    if (dice < 0.1) alive = await countUp(url, oneOf(counters));
    else if (dice < 0.25) alive = await remove(url, document);
    else alive = await put(url, document);
    if (!alive) return;
  }
}

/** Checks that every acknowledged write is exact, every other is whole or absent, and all views agree. */
async function verify(url: string): Promise<void> {
  const present = new Map<string, string>();
  await Promise.all(
    Array.from({ length: WORKERS }, async (_, worker) => {
      for (let at = worker; at < documents.length; at += WORKERS) {
        const document = documents[at] as Document;
        const name = `${document.project}/${document.id}`;
        const reply = await answered(url, pathOf(document.project, document.id));
        if (reply.status !== 200 && reply.status !== 404) throw unexpected(`GET ${name}`, reply);
        const text = reply.status === 200 ? reply.text : undefined;
        const possible = document.state.possible.length;
        const first = document.state.possible[0];
        document.state.settle(name, text, text === undefined ? undefined : reply.rev);
        if (possible > 1 && document.state.known?.body !== first?.body) figures.landed++;
        if (text !== undefined) present.set(name, text);
      }
    }),
  );
  for (const counter of counters) {
    const reply = await answered(url, pathOf(counter.project, 'counter'));
    if (reply.status !== 200 && counter.acknowledged > 0) throw unexpected('GET counter', reply);
    const count = reply.status === 200 ? countOf(reply.text) : 0;
    expect(count).toBeGreaterThanOrEqual(counter.acknowledged);
    expect(count).toBeLessThanOrEqual(counter.acknowledged + counter.unanswered);
    counter.acknowledged = count;
    counter.unanswered = 0;
    if (reply.status === 200) present.set(`${counter.project}/counter`, reply.text);
  }
  for (const project of PROJECTS) await verifyViews(url, project, present);
}

async function verifyViews(
  url: string,
  project: string,
  present: ReadonlyMap<string, string>,
): Promise<void> {
  const ofProject = [...present].filter(([name]) => name.startsWith(`${project}/`));
  const expected = new Map(ofProject.map(([name, text]) => [name.slice(project.length + 1), text]));
  const listed = new Map<string, string>();
  for (let cursor = ''; ; ) {
    const reply = await answered(
      url,
      `/v1/projects/${project}/collections/notes/documents?limit=50${cursor}`,
    );
    // A project that does not exist yet has no list.
    if (reply.status === 404 && expected.size === 0) return;
    if (reply.status !== 200) throw unexpected(`list of ${project}`, reply);
    const page = JSON.parse(reply.text) as {
      documents: { _id: string; _rev: string }[];
      next_cursor?: string;
    };
    for (const { _id, _rev } of page.documents) {
      expect(listed.has(_id), `${_id} is listed twice`).toBe(false);
      listed.set(_id, _rev);
      expect(reply.text.includes(String(expected.get(_id))), `${_id} is listed as it is read`).toBe(true);
    }
    if (page.next_cursor === undefined) break;
    cursor = `&cursor=${page.next_cursor}`;
  }
  expect([...listed.keys()].sort()).toEqual([...expected.keys()].sort());
  const reply = await answered(url, `/v1/projects/${project}/changes?limit=1000`);
  const { changes } = JSON.parse(reply.text) as {
    changes: { _id: string; _rev: string; deleted?: boolean }[];
  };
  expect(new Set(changes.map(({ _id }) => _id)).size, 'each document once').toBe(changes.length);
  const living = changes.filter(({ deleted }) => deleted !== true);
  expect(new Map(living.map(({ _id, _rev }) => [_id, _rev]))).toEqual(listed);
}

/** Repeats writes with their idempotency keys: each takes effect once, even if its answer was lost. */
async function repeat(url: string): Promise<void> {
  for (const one of repeatables.splice(0).slice(-20)) {
    const { document, key, body } = one;
    const before = document.state.known;
    const reply = await send(url, pathOf(document.project, document.id), {
      method: 'PUT',
      body,
      headers: { 'idempotency-key': key },
    });
    if (reply === undefined) throw new Error('no answer, although the process was not killed');
    if (reply.status !== 200 && reply.status !== 201) throw unexpected(`PUT ${document.id} again`, reply);
    figures.repeated++;
    const hadLanded = before?.body === body;
    if (one.rev !== undefined) expect(reply.rev, 'the first answer again').toBe(one.rev);
    else if (hadLanded) expect(reply.rev, 'it had landed').toBe(before.rev);
    const now = await answered(url, pathOf(document.project, document.id));
    const landsNow = now.rev === reply.rev && !hadLanded;
    // Only a write with a lost answer may take effect now, and only if it had not before.
    if (landsNow) {
      expect(one.rev).toBeUndefined();
      document.state.begin(body).acknowledged(reply.rev);
      document.staleRev = undefined;
    }
    document.state.settle(document.id, now.status === 200 ? now.text : undefined, now.rev);
  }
}

it(`killed at least ${KILLS_MIN} times under load, Bundoc keeps every acknowledged write and no partial write`, async () => {
  process.stdout.write(`kill loop: KILL_SEED=${SEED}\n`);
  const goal = Date.now() + TIME_GOAL_MS;
  for (let round = 0; figures.kills < KILLS_MIN || (figures.kills < KILLS && Date.now() < goal); round++) {
    await using bundoc = await startBundocProcess(environment);
    // Every third process is killed during its recovery. The next round checks its content.
    const isKilledEarly = round % 3 === 2;
    if (!isKilledEarly) {
      await verify(bundoc.url);
      await repeat(bundoc.url);
    }
    const working = startInBackground(
      Promise.all(Array.from({ length: WORKERS }, (_, n) => work(bundoc.url, n))),
    );
    const enough = figures.acknowledged + ACKNOWLEDGED_MIN;
    await Promise.race([sleep(isKilledEarly ? random() * 80 : 60 + random() * 500), working]);
    // On a slow disk, wait until there is data to lose.
    if (!isKilledEarly)
      await Promise.race([
        expect.poll(() => figures.acknowledged, { interval: 5 }).toBeGreaterThan(enough),
        working,
      ]);
    await bundoc.kill();
    figures.kills++;
    await working;
    expect(bundoc.log).not.toMatch(/does not open|storage of a project failed|cannot be opened/);
  }
  await using last = await startBundocProcess(environment);
  await verify(last.url);
  await repeat(last.url);
  expect(await last.stop()).toBe(0);
  await using again = await startBundocProcess(environment);
  await verify(again.url);
  process.stdout.write(`kill loop: ${JSON.stringify(figures)}\n`);
  expect(figures.acknowledged).toBeGreaterThan(figures.kills * 10);
});
