// What it costs that each answer shows one state: writes beside answers that scan, and beside a reader who
// keeps a state for long.

import { documents, quiet } from '../lib/documents.mjs';
import { readMetrics } from '../lib/metrics.mjs';
import { startPostgres, usage } from '../lib/processes.mjs';
import { round, say } from '../lib/report.mjs';
import { COLLECTION, fillVaried } from './queries.mjs';

const DOCUMENTS = 20_000;
const WRITTEN = 2_000;
const BODY = Buffer.from(JSON.stringify({ owner: 'owner-1', done: true, text: 'x'.repeat(900) }));
/** The bound for a machine of 8 GiB or more, `docs/operations/limits.md`. */
const BOUND_MIB = 256;
const SLOW_READER_S = 30;
const SAMPLE_MS = 250;
const MIB = 2 ** 20;

export async function stateTargets(bench) {
  const { report, keep, installation, directory } = bench;
  await bench.bundoc.stop();
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) report.note('PostgreSQL is **not installed** here: its states are missing.');
  const environments = {
    files: {},
    ...(postgres && { PostgreSQL: { BUNDOC_STORAGE: `${postgres.connectionString}?sslmode=disable` } }),
  };
  for (const [engine, env] of Object.entries(environments)) {
    const node = await keep(installation.startBundoc(env));
    const project = `states-${engine.toLowerCase()}`;
    say(`filling a project with ${DOCUMENTS} documents, ${engine}`);
    await fillVaried(node.url, project, DOCUMENTS, installation.token);
    await quiet(node);
    await besideScans(bench, node, { engine, project });
    // On PostgreSQL nothing is kept between the requests of a reader.
    if (engine === 'files') await besideSlowReader(bench, node, { engine, project });
    await node.stop();
  }
  await postgres?.stop();
  bench.bundoc = await keep(installation.startBundoc());
}

/** 64 readers, each answer of which opens all documents, beside 64 writers. */
async function besideScans({ report, token, installation, quick }, node, { engine, project }) {
  const seconds = quick ? 5 : 15;
  const samples = new Samples(node, installation.issueToken('service', 'docs:metrics'));
  const [written] = await Promise.all([
    report.measured(`write beside 64 scans, ${engine}`, node, writes(project, token, seconds)),
    report.measured(`scan beside 64 writers, ${engine}`, node, {
      method: 'POST',
      paths: [`${COLLECTION(project)}/count`],
      bodies: ['{"where":{"absent":1}}'],
      connections: 64,
      seconds,
      patienceS: 60,
      tolerant: true,
      expectsFailure: true,
      token,
    }),
  ]);
  const { keptMib, rssMb } = await samples.end();
  report.note(
    `${engine}: beside 64 scans and ${round(written.perSecond)} writes a second, Bundoc kept up to ${round(keptMib)} MiB of former documents and took up to ${round(rssMb)} MB.`,
  );
  report.target(`former documents for 64 scans, MiB, ${engine}`, [keptMib], BOUND_MIB, 'at most');
}

/** One reader pages through a collection, a page a second, as of the first page. */
async function besideSlowReader({ report, token, installation, quick }, node, { engine, project }) {
  const seconds = quick ? 5 : SLOW_READER_S;
  const alone = (name) =>
    report.measured(name, node, { ...writes(project, token, quick ? 2 : SLOW_READER_S / 3), steady: true });
  await alone('warm up');
  const before = await alone(`write, no reader, ${engine}`);
  const samples = new Samples(node, installation.issueToken('service', 'docs:metrics'));
  const [beside, pages] = await Promise.all([
    report.measured(`write beside a reader of ${seconds} s, ${engine}`, node, {
      ...writes(project, token, seconds),
      steady: true,
    }),
    readSlowly(node.url, project, { token, seconds }),
  ]);
  const { keptMib } = await samples.end();
  const after = await alone(`write, no reader, ${engine}`);
  report.note(
    `${engine}: a reader took ${seconds} s for ${pages} pages of one state. Bundoc kept up to ${round(keptMib)} MiB of former documents for it.`,
  );
  report.target(
    `writes beside a reader of ${seconds} s / alone, ${engine}`,
    [(2 * beside.perSecond) / (before.perSecond + after.perSecond)],
    0.95,
    'at least',
  );
}

function writes(project, token, seconds) {
  const paths = Array.from({ length: WRITTEN }, (_, at) => `${documents(project)[0]}/d${at}`);
  return { method: 'PUT', paths, body: BODY, connections: 64, seconds, token };
}

/** @returns the number of pages. It throws when the state is given up. */
async function readSlowly(url, project, { token, seconds }) {
  const ends = performance.now() + seconds * 1_000;
  const headers = { authorization: `Bearer ${token}` };
  let query = '';
  let pages = 0;
  while (performance.now() < ends) {
    const answer = await fetch(`${url}${documents(project)[0]}?limit=100${query}`, { headers });
    const body = await answer.json();
    if (!answer.ok) throw new Error(`a page of one state: ${JSON.stringify(body)}`);
    query = `&cursor=${encodeURIComponent(body.next_cursor)}&as_of=${body.as_of}`;
    pages++;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  return pages;
}

/** The largest figures of a process since this was made. */
class Samples {
  #most = { keptMib: 0, rssMb: 0 };
  #running;
  #isEnded = false;

  constructor(node, token) {
    this.#running = this.#sample(node, token);
  }

  async #sample({ url, pid }, token) {
    while (!this.#isEnded) {
      const metrics = await readMetrics(url, token);
      const kept = metrics.valueOf('bundoc_snapshot_bytes') ?? 0;
      this.#most.keptMib = Math.max(this.#most.keptMib, kept / MIB);
      this.#most.rssMb = Math.max(this.#most.rssMb, usage(pid).rssMb);
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    }
  }

  async end() {
    this.#isEnded = true;
    await this.#running;
    return this.#most;
  }
}
