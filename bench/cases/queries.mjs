// Queries by the content of documents.

import { Agent, request } from 'node:http';
import { documents, quiet } from '../lib/documents.mjs';
import { startPeer, startPostgres, usage } from '../lib/processes.mjs';
import { round, say } from '../lib/report.mjs';

/** Documents that match one query. */
const FOUND = 20;
/** Documents per batch to fill a project. */
const BATCH = 500;
const TEXT = 'Lorem ipsum dolor sit amet, consectetur adipiscing elit. '.repeat(7);
export const COLLECTION = (project) => documents(project)[0].replace(/\/documents$/, '');

/**
 * Indexed queries, pages and figures in projects of several sizes, and the times to build an index and to
 * open a project with it.
 */
export async function queryTargets(bench) {
  const { report, keep, installation, token, full } = bench;
  await bench.bundoc.stop();
  const admin = installation.issueToken('client', 'docs:read docs:write docs:admin');
  const p99 = {};
  for (const count of [10_000, 100_000, ...(full ? [1_000_000] : [])]) {
    const project = `query-${count}`;
    let bundoc = await keep(installation.startBundoc());
    say(`filling a project with ${count} documents`);
    await fillVaried(bundoc.url, project, count, token);
    await quiet(bundoc);

    const before = usage(bundoc.pid).rssMb;
    const ms = await index(bundoc.url, project, admin);
    report.note(
      `An index of two fields over ${count} documents of 0.5 KiB was built in ${(ms / 1_000).toFixed(1)} s and took ${Math.round(usage(bundoc.pid).rssMb - before)} MB.`,
    );
    const path = `${COLLECTION(project)}/query`;
    const owners = Array.from({ length: 1_000 }, (_, at) => (at * 7_919) % (count / FOUND));
    const load = {
      method: 'POST',
      paths: [path],
      bodies: owners.map((owner) =>
        JSON.stringify({ where: { owner: `owner-${owner}` }, orderBy: [{ field: 'n' }], limit: FOUND }),
      ),
      token,
      connections: 64,
      seconds: 4,
      steady: true,
    };
    await report.measured('warm up', bundoc, { ...load, seconds: 3 }, { silent: true });
    const turns = [];
    for (let turn = 0; turn < 3; turn++)
      turns.push(await report.measured(`indexed query for ${FOUND} of ${count}`, bundoc, load));
    p99[count] = turns.map((turn) => turn.p99);
    if (count === 100_000) {
      report.target(
        `indexed queries for ${FOUND} of 100k documents, /s`,
        turns.map(({ perSecond }) => perSecond),
        2_000,
        'at least',
      );
      const list = {
        method: 'GET',
        paths: [`${documents(project)[0]}?limit=100`],
        token,
        connections: 64,
        seconds: 4,
      };
      const page = await send(bundoc.url, 'GET', list.paths[0], undefined, token);
      list.kib = page.length / 1_024;
      const bareList = { ...list, paths: [`${documents(project)[0]}?bytes=${page.length}`] };
      const pages = [];
      const ofBare = [];
      for (let turn = 0; turn < 3; turn++) {
        const bareTurn = await report.measured('bare Fastify: as many bytes', bench.bare, bareList);
        const own = await report.measured('list of 100', bundoc, list);
        pages.push(own.perSecond);
        ofBare.push(own.perSecond / bareTurn.perSecond);
      }
      report.target('list pages of 100, /s', pages, 1_000, 'at least');
      report.note(
        `Of the pages that bare Fastify sends of as many bytes, ready-made, a list of 100 made ${ofBare.map((ratio) => ratio.toFixed(2)).join(', ')}.`,
      );
      await report.measured('aggregate of 1,000 documents by index', bundoc, {
        ...load,
        paths: [`${COLLECTION(project)}/aggregate`],
        bodies: [
          JSON.stringify({
            where: { owner: { $in: owners.slice(0, 50).map((owner) => `owner-${owner}`) } },
            groupBy: ['owner'],
            figures: { n: { op: 'count' }, total: { op: 'sum', field: 'n' } },
          }),
        ],
        connections: 8,
      });
      const scan = await timedPost(
        bundoc.url,
        `${COLLECTION(project)}/count`,
        '{"where":{"absent":1}}',
        token,
      );
      report.note(`Counting by a scan of 100,000 documents took ${round(scan)} ms.`);
    }
    await bundoc.stop();
    bundoc = await keep(installation.startBundoc());
    const opened = performance.now();
    await untilReady(bundoc.url, project, admin);
    report.note(
      `Opened again, a project of ${count} documents had its index after ${((performance.now() - opened) / 1_000).toFixed(1)} s.`,
    );
    await bundoc.stop();
  }
  const ratio = (count) => p99[count].map((value, at) => value / p99[10_000][at]);
  report.target('p99 of indexed queries at 100k / at 10k documents', ratio(100_000), 1.5, 'at most');
  if (full)
    report.target('p99 of indexed queries at 1M / at 10k documents', ratio(1_000_000), 1.5, 'at most');
  bench.bundoc = await keep(installation.startBundoc());
}

/**
 * Ranges in order, 20 documents each: p99 in projects of several sizes on both engines, and beside a column
 * in the clear; creates with two indexes / with none on PostgreSQL.
 */
export async function orderTargets(bench) {
  const { report, keep, installation, token, full, directory } = bench;
  await bench.bundoc.stop();
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) report.note('PostgreSQL is **not installed** here: its queries are missing.');
  const admin = installation.issueToken('client', 'docs:read docs:write docs:admin');
  const byHand = postgres && (await keep(startPeer('postgres', postgres.connectionString)));
  const environments = {
    files: {},
    ...(postgres && { PostgreSQL: { BUNDOC_STORAGE: `${postgres.connectionString}?sslmode=disable` } }),
  };
  const p99 = { files: {}, PostgreSQL: {} };
  for (const count of [10_000, 100_000, ...(full ? [1_000_000] : [])]) {
    const load = rangesOf(count, token);
    for (const [engine, env] of Object.entries(environments)) {
      const project = `order-${engine.toLowerCase()}-${count}`;
      const node = await keep(installation.startBundoc(env));
      say(`filling a project with ${count} documents, ${engine}`);
      await fillVaried(node.url, project, count, token);
      const ms = await indexBesideWrites(bench, node, { project, count, engine, admin });
      report.note(
        `${engine}: two indexes over ${count} documents were built in ${(ms / 1_000).toFixed(1)} s, beside ${PACED_PER_SECOND} writes a second.`,
      );
      await report.measured(
        'warm up',
        node,
        { ...load, paths: paths(project), seconds: 3 },
        { silent: true },
      );
      const turns = [];
      for (let turn = 0; turn < 3; turn++)
        turns.push(
          await report.measured(`range of 20 of ${count}, ${engine}`, node, {
            ...load,
            paths: paths(project),
          }),
        );
      p99[engine][count] = turns.map((turn) => turn.p99);
      if (engine === 'PostgreSQL' && count === 10_000) await createsWithIndexes(bench, node, admin);
      await node.stop();
    }
    if (byHand === undefined) continue;
    await send(byHand.url, 'POST', '/fill', JSON.stringify({ count, text: TEXT }), token);
    await report.measured(`range of 20 of ${count}, a column in the clear`, byHand, {
      ...load,
      paths: paths('x'),
    });
  }
  const [least, most] = [10_000, full ? 1_000_000 : 100_000];
  const ratio = (above, below) => above.map((value, at) => value / below[at]);
  for (const engine of Object.keys(environments))
    report.target(
      `p99 of ranges at ${most} / at ${least} documents, ${engine}`,
      ratio(p99[engine][most], p99[engine][least]),
      1.5,
      'at most',
    );
  if (postgres !== undefined)
    report.target(
      `p99 of ranges at ${most} documents, PostgreSQL / files`,
      ratio(p99.PostgreSQL[most], p99.files[most]),
      3,
      'at most',
    );
  await byHand?.stop();
  await postgres?.stop();
  bench.bundoc = await keep(installation.startBundoc());
}

const paths = (project) => [`${COLLECTION(project)}/query`];

function rangesOf(count, token) {
  const starts = Array.from({ length: 1_000 }, (_, at) => (at * 7_919) % (count - FOUND));
  const bodies = starts.map((from) =>
    JSON.stringify({ where: { n: { $gte: from } }, orderBy: [{ field: 'n' }], limit: FOUND }),
  );
  return { method: 'POST', bodies, token, connections: 64, seconds: 4, steady: true };
}

async function createsWithIndexes(bench, node, admin) {
  const { report, token } = bench;
  await fillVaried(node.url, 'bare-0', 1_000, token);
  await fillVaried(node.url, 'indexed-0', 1_000, token);
  await index(node.url, 'indexed-0', admin, [['n'], ['owner', 'n']]);
  const bodies = Array.from({ length: 1_000 }, (_, n) =>
    JSON.stringify({ owner: `owner-${n % 50}`, n, text: TEXT }),
  );
  const create = (project) => ({
    method: 'POST',
    paths: documents(project),
    bodies,
    token,
    connections: 64,
    seconds: 4,
  });
  const ratios = await report.pairs(
    3,
    'create with two indexes, PostgreSQL',
    [node, create('indexed-0')],
    ['create without indexes, PostgreSQL', node, create('bare-0')],
  );
  report.target('PostgreSQL: creates with two indexes / without', ratios, 0.6, 'at least');
}

/**
 * Builds two indexes while documents are overwritten at a steady rate, and compares the latencies of these
 * writes with those before. @returns milliseconds of the build.
 */
async function indexBesideWrites({ report, token }, node, { project, count, engine, admin }) {
  await quiet(node);
  const writes = new PacedWrites(node.url, project, count, token);
  await new Promise((resolve) => setTimeout(resolve, PACED_WARM_UP_MS));
  writes.take();
  await new Promise((resolve) => setTimeout(resolve, PACED_BEFORE_MS));
  const before = writes.take();
  const ms = await index(node.url, project, admin, [['n'], ['owner', 'n']]);
  const during = writes.take();
  await writes.stop();
  report.note(
    `${engine}: ${PACED_PER_SECOND} writes a second to ${count} documents took ${before.p50} ms (p99 ${before.p99}), and ${during.p50} (p99 ${during.p99}) while the indexes were built.`,
  );
  report.target(
    `p99 of writes while two indexes over ${count} documents are built / before, ${engine}`,
    [during.p99 / before.p99],
    2,
    'at most',
  );
  return ms;
}

/** PUTs to documents of {@link fillVaried} at a steady rate, whether earlier ones are answered or not. */
class PacedWrites {
  #latencies = [];
  #pending = new Set();
  #timer;

  constructor(url, project, count, token) {
    const begun = performance.now();
    let sent = 0;
    this.#timer = setInterval(() => {
      for (; sent < ((performance.now() - begun) / 1_000) * PACED_PER_SECOND; sent++) {
        const n = (sent * 7_919) % count;
        const body = JSON.stringify({ owner: 'owner-1', n, done: true, text: TEXT });
        const at = performance.now();
        const done = send(url, 'PUT', `${documents(project)[0]}/d${n}`, body, token).then(() => {
          this.#latencies.push(performance.now() - at);
          this.#pending.delete(done);
        });
        this.#pending.add(done);
      }
    }, 5);
  }

  /** Percentiles of the latencies since the last call, milliseconds. */
  take() {
    const sorted = this.#latencies.splice(0).sort((a, b) => a - b);
    const at = (share) => Number((sorted[Math.floor(sorted.length * share)] ?? Number.NaN).toFixed(1));
    return { p50: at(0.5), p99: at(0.99) };
  }

  async stop() {
    clearInterval(this.#timer);
    await Promise.all(this.#pending);
  }
}

/** Defines indexes and waits for them. @returns milliseconds. */
export async function index(url, project, token, all = [['owner', 'n']]) {
  const begun = performance.now();
  const body = JSON.stringify({ indexes: all.map((fields) => ({ fields })) });
  await send(url, 'PUT', COLLECTION(project), body, token);
  await untilReady(url, project, token);
  return performance.now() - begun;
}

async function untilReady(url, project, token) {
  for (;;) {
    const answer = JSON.parse(await send(url, 'GET', COLLECTION(project), undefined, token));
    if (answer.indexes.length > 0 && answer.indexes.every(({ state }) => state === 'ready')) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function timedPost(url, path, body, token) {
  const begun = performance.now();
  await send(url, 'POST', path, body, token);
  return performance.now() - begun;
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** @returns the answer's body. */
function send(url, method, path, body, token) {
  return new Promise((resolve, reject) => {
    request(
      `${url}${path}`,
      {
        method,
        agent,
        headers: {
          authorization: `Bearer ${token}`,
          ...(body === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': body.length }),
        },
      },
      (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () =>
          response.statusCode < 300
            ? resolve(text)
            : reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`)),
        );
      },
    )
      .on('error', reject)
      .end(body);
  });
}

/** Writes a second beside the build of indexes, and how long they are measured before it. */
const PACED_PER_SECOND = 200;
const PACED_WARM_UP_MS = 3_000;
const PACED_BEFORE_MS = 15_000;

/** PUTs documents in mixed order, twenty for each `owner`. */
export async function fillVaried(url, project, count, token) {
  const operationOf = (n) => ({
    op: 'put',
    collection: 'notes',
    id: `d${n}`,
    document: { owner: `owner-${n % (count / FOUND)}`, n: count - n, done: n % 2 === 0, text: TEXT },
  });
  let at = 0;
  const worker = async () => {
    while (at < count) {
      const from = at;
      at = Math.min(count, at + BATCH);
      const operations = Array.from({ length: at - from }, (_, place) => operationOf(from + place));
      await send(url, 'POST', `/v1/projects/${project}/batch`, JSON.stringify({ operations }), token);
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}
