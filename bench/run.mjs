// npm run bench [-- --quick | --full] [--dir <folder>] [--only <text>]
//
// Measures Bundoc beside what it is to be compared with, all on this machine and in one go, since only ratios within
// one run mean something. Writes bench/results/latest.{md,json} and prints the table.
//
// --quick   the targets alone, about three minutes; without it all cases, about a quarter of an hour
// --full    also 60 s of sustained creates and a project of a million documents (8 GB of disk)

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generator, run } from './lib/load.mjs';
import { Installation, startPeer, startPostgres, usage } from './lib/processes.mjs';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    full: { type: 'boolean', default: false },
    dir: { type: 'string', default: tmpdir() },
    only: { type: 'string', default: '' },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const directory = mkdtempSync(join(options.dir, 'bundoc-bench-'));
const HOT_DOCUMENTS = 1_000;
const PROJECTS = 64;

/** @type {{ stop(): Promise<void> }[]} */
const started = [];
const targets = [];
const cases = [];
const notes = [];

let interrupted = false;
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM']))
  process.once(signal, () => {
    interrupted = true;
    void cleanUp().then(() => process.exit(1));
  });

try {
  say(`build`);
  execFileSync('npx', ['tsc', '-b'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  await main();
  report();
} catch (error) {
  if (!interrupted) throw error;
} finally {
  await cleanUp();
}

async function main() {
  const installation = await keep(Installation.start(directory));
  const bundoc = await keep(installation.startBundoc());
  const bare = await keep(startPeer('bare'));
  const bench = { installation, bundoc, bare, token: installation.token };
  await fill(bench, bundoc, 'p1-0', HOT_DOCUMENTS, documentOf(1_024));

  if (wanted('get')) await getTarget(bench);
  if (wanted('create')) await createTarget(bench);
  if (wanted('projects')) await projectsTarget(bench);
  if (!options.quick && wanted('cases')) await allCases(bench);
  if (options.full && wanted('sustained')) await sustainedTarget(bench);
  if (wanted('size')) await sizes(bench);
}

/** Sealed GET from memory / bare Fastify GET of as many bytes. */
async function getTarget({ bundoc, bare, token }) {
  const load = { method: 'GET', paths: hotPaths('p1-0'), token, connections: 64, seconds: 4 };
  const ratios = await pairs(3, 'sealed GET', [bundoc, load], [bare, load]);
  target('sealed GET / bare GET', ratios, 0.65, 'at least');
  const least = await measured('bare Fastify GET / (hello world)', bare, {
    ...load,
    paths: ['/'],
    seconds: 3,
  });
  notes.push(`A bare Fastify GET of \`/\` without a document made ${round(least.perSecond)} requests/s.`);
}

/** Durable creates for ten seconds / bare Fastify echo of the same JSON. */
async function createTarget({ installation, bundoc, bare, token }) {
  const load = { method: 'POST', body: documentOf(1_024), token, connections: 64 };
  const ratios = [];
  for (let round = 0; round < 2; round++) {
    const echo = await measured('bare Fastify POST echo', bare, {
      ...load,
      paths: documents('p1-0'),
      seconds: 5,
    });
    const project = `p1-create-${round}`;
    await fill({ token }, bundoc, project, 1, documentOf(1_024));
    const create = await measured('durable create, 10 s burst', bundoc, {
      ...load,
      paths: documents(project),
      seconds: 10,
    });
    ratios.push(create.perSecond / echo.perSecond);
    const ms = await filesWritten(installation, project, create.requests);
    notes.push(
      `After a burst of ${create.requests} creates the last document file was written ${Math.round(ms)} ms later.`,
    );
  }
  target('durable create, 10 s burst / bare echo', ratios, 0.6, 'at least');
}

/** Creates in 64 projects in turn / in one. */
async function projectsTarget(bench) {
  const { installation, bundoc, token } = bench;
  const many = Array.from({ length: PROJECTS }, (_, at) => `p1-many-${at}`);
  for (const project of many) await fill(bench, bundoc, project, 1, documentOf(1_024));
  const load = { method: 'POST', body: documentOf(1_024), token, connections: 64, seconds: 5 };
  const ratios = [];
  let written = 0;
  for (let round = 0; round < 2; round++) {
    const project = `p1-one-${round}`;
    await fill(bench, bundoc, project, 1, documentOf(1_024));
    const one = await measured('create, 1 project', bundoc, { ...load, paths: documents(project) });
    await filesWritten(installation, project, one.requests);
    const all = await measured('create, 64 projects', bundoc, {
      ...load,
      paths: many.flatMap((name) => documents(name)),
    });
    ratios.push(all.perSecond / one.perSecond);
    written += all.requests;
    await filesWritten(installation, many, written);
  }
  target('create, 64 projects / one', ratios, 0.7, 'at least');
}

/** Creates for a minute, until every document file is there / bare echo. */
async function sustainedTarget({ installation, bundoc, bare, token }) {
  const load = { method: 'POST', body: documentOf(1_024), token, connections: 64 };
  const echo = await measured('bare Fastify POST echo', bare, {
    ...load,
    paths: documents('p1-0'),
    seconds: 10,
  });
  await fill({ token }, bundoc, 'p1-sustained', 1, documentOf(1_024));
  const begun = performance.now();
  const create = await measured('durable create, 60 s', bundoc, {
    ...load,
    paths: documents('p1-sustained'),
    seconds: 60,
  });
  await filesWritten(installation, 'p1-sustained', create.requests);
  const seconds = (performance.now() - begun) / 1_000;
  target(
    'sustained create, 60 s, every file on disk / bare echo',
    [create.requests / seconds / echo.perSecond],
    0.33,
    'at least',
  );
}

/** Every server, size and number of connections. */
async function allCases(bench) {
  const { installation, bundoc, bare, token } = bench;
  const simple = await keep(startPeer('simple', join(directory, 'simple')));
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) notes.push('PostgreSQL is **not installed** here: its rows are missing.');
  const sealedByHand = postgres && (await keep(startPeer('postgres', postgres.connectionString)));
  const servers = [
    ['Bundoc', bundoc],
    ['first simple store', simple],
    ...(sealedByHand === undefined ? [] : [[`Fastify + PostgreSQL ${postgres.version}`, sealedByHand]]),
  ];
  for (const [size, bytes] of [
    ['p1', 1_024],
    ['p16', 16_384],
  ]) {
    const body = documentOf(bytes);
    for (const [, server] of servers) await fill(bench, server, `${size}-0`, HOT_DOCUMENTS, body);
    for (const connections of [1, 64, 256]) {
      const common = { token, connections, seconds: 3, kib: bytes / 1_024 };
      const get = { ...common, method: 'GET', paths: hotPaths(`${size}-0`) };
      const create = { ...common, method: 'POST', paths: documents(`${size}-0`), body };
      const overwrite = { ...common, method: 'PUT', paths: hotPaths(`${size}-0`), body };
      await measured('bare Fastify: GET', bare, get);
      await measured('bare Fastify: POST echo', bare, create);
      for (const [name, server] of servers) {
        await measured(`${name}: get hot`, server, get);
        await measured(`${name}: create`, server, create);
        await measured(`${name}: overwrite`, server, overwrite);
        if (server === bundoc) await quiet(installation, bundoc);
      }
    }
  }
  for (const server of [sealedByHand, postgres, simple]) await server?.stop();

  const projects = Array.from({ length: PROJECTS }, (_, at) => `p1-many-${at}`);
  for (const project of projects) await fill(bench, bundoc, project, 16, documentOf(1_024));
  const paths = projects.flatMap((project) => hotPaths(project, 16));
  await measured('Bundoc: get hot, 64 projects', bundoc, {
    method: 'GET',
    paths,
    token,
    connections: 64,
    seconds: 3,
  });

  await bundoc.stop();
  const cold = await keep(installation.startBundoc({ BUNDOC_CACHE_BYTES: '0' }));
  for (const [size, kib] of [
    ['p1', 1],
    ['p16', 16],
  ])
    for (const connections of [1, 64, 256])
      await measured('Bundoc: get cold (no cache)', cold, {
        ...{ method: 'GET', paths: hotPaths(`${size}-0`), token, connections, seconds: 3, kib },
      });
  await cold.stop();
  bench.bundoc = await keep(installation.startBundoc());
}

/** Latency, memory and opening by the number of documents in a project. */
async function sizes(bench) {
  const { installation, token } = bench;
  const steps = [1_000, 100_000, ...(options.full ? [1_000_000] : [])];
  const p99 = {};
  await bench.bundoc.stop();
  for (const count of steps) {
    const project = `p1-size-${count}`;
    let bundoc = await keep(installation.startBundoc());
    say(`filling a project with ${count} documents`);
    await fill(bench, bundoc, project, count, documentOf(1_024));
    if (count === 100_000) {
      const replayed = [];
      const opened = [];
      for (let round = 0; round < 3; round++) {
        await bundoc.stop(round === 0 ? 'SIGKILL' : 'SIGTERM');
        bundoc = await keep(installation.startBundoc());
        (round === 0 ? replayed : opened).push(
          (await timedGet(bundoc.url, `${documents(project)[0]}/d1`, token)) / 1_000,
        );
      }
      target('opening 100k documents, s', opened, 1, 'at most');
      notes.push(
        `After kill -9, opening 100k documents took ${replayed[0].toFixed(2)} s (it replays the journal).`,
      );
    }
    await quiet(installation, bundoc);
    const paths = Array.from(
      { length: 5_000 },
      (_, at) => `${documents(project)[0]}/d${1 + ((at * 7_919) % count)}`,
    );
    const load = { method: 'GET', paths, token, connections: 64, seconds: 4 };
    await measured(`warm up, ${count} documents`, bundoc, { ...load, seconds: 2 }, { silent: true });
    const tries = [];
    for (let round = 0; round < 3; round++)
      tries.push((await measured(`get, project of ${count}`, bundoc, load)).p99);
    p99[count] = tries;
    await measured(`list of 100, project of ${count}`, bundoc, {
      ...load,
      paths: [`${documents(project)[0]}?limit=100`],
      connections: 8,
      seconds: 3,
    });
    if (count === 1_000_000) {
      target('resident memory at 1M documents, MB', [usage(bundoc.pid).rssMb], 700, 'at most');
      // Without what filling left behind: just opened.
      await bundoc.stop();
      bundoc = await keep(installation.startBundoc());
      const ms = await timedGet(bundoc.url, `${documents(project)[0]}/d1`, token);
      notes.push(
        `Opening 1M documents took ${(ms / 1_000).toFixed(1)} s and ${Math.round(usage(bundoc.pid).rssMb)} MB.`,
      );
    }
    await bundoc.stop();
  }
  const ratio = (count) => p99[count].map((value, at) => value / p99[1_000][at]);
  target('GET p99 at 100k / at 1k documents', ratio(100_000), 1.5, 'at most');
  if (options.full) target('GET p99 at 1M / at 1k documents', ratio(1_000_000), 1.5, 'at most');
  else
    notes.push(
      'The targets of a million documents and of 60 sustained seconds are measured with `--full` only.',
    );
}

/** Runs two loads by turns. @returns the ratio of their rates for each turn. */
async function pairs(turns, name, [server, load], [baseServer, baseLoad]) {
  await measured('warm up', server, { ...load, seconds: 2 }, { silent: true });
  await measured('warm up', baseServer, { ...baseLoad, seconds: 1 }, { silent: true });
  const ratios = [];
  for (let turn = 0; turn < turns; turn++) {
    const base = await measured(`bare Fastify ${baseLoad.method}`, baseServer, baseLoad);
    const own = await measured(name, server, load);
    ratios.push(own.perSecond / base.perSecond);
  }
  return ratios;
}

async function measured(name, server, load, { silent = false } = {}) {
  const before = usage(server.pid);
  const { kib, ...rest } = load;
  const result = await run(directory, { ...rest, url: server.url });
  const after = usage(server.pid);
  const row = {
    name,
    kib: kib ?? 1,
    connections: load.connections,
    ...result,
    cpuPercent: ((after.cpuSeconds - before.cpuSeconds) / result.seconds) * 100,
    /** What holds up best when others use the processors too. */
    cpuUs: ((after.cpuSeconds - before.cpuSeconds) / result.requests) * 1e6,
    rssMb: after.rssMb,
  };
  if (!silent) {
    cases.push(row);
    say(
      `${name}, ${row.kib} KiB, ${load.connections} connections: ${round(row.perSecond)}/s, p99 ${row.p99.toFixed(2)} ms, ${row.cpuUs.toFixed(1)} µs CPU each`,
    );
  }
  return row;
}

/** PUTs documents d1 to d<count>. */
async function fill({ token }, server, project, count, body) {
  const put = { method: 'PUT', prefix: `${documents(project)[0]}/d`, count, body, token };
  // The first one makes the project, so that the others do not wait for it all at once.
  await run(directory, { ...put, url: server.url, count: 1, connections: 1, seconds: 30 });
  if (count > 1)
    await run(directory, { ...put, url: server.url, connections: Math.min(64, count), seconds: 900 });
}

/** Waits until projects have at least so many document files. @returns milliseconds. */
async function filesWritten(installation, projects, count) {
  const begun = performance.now();
  while ([projects].flat().reduce((sum, project) => sum + installation.files(project), 0) < count) {
    if (performance.now() - begun > 300_000) throw new Error(`the files of ${projects} are not written`);
    await sleep(100);
  }
  return performance.now() - begun;
}

/** Waits until a process does next to nothing. */
async function quiet(_installation, { pid }) {
  for (let tries = 0; tries < 100; tries++) {
    const before = usage(pid).cpuSeconds;
    await sleep(300);
    if (usage(pid).cpuSeconds - before <= 0.02) return;
  }
}

function timedGet(url, path, token) {
  const begun = performance.now();
  return new Promise((resolve, reject) => {
    request(`${url}${path}`, { headers: { authorization: `Bearer ${token}` }, agent: false }, (response) => {
      response.resume();
      response.on('end', () =>
        response.statusCode === 200
          ? resolve(performance.now() - begun)
          : reject(new Error(`GET ${path}: ${response.statusCode}`)),
      );
    })
      .on('error', reject)
      .end();
  });
}

function documents(project) {
  return [`/v1/projects/${project}/collections/notes/documents`];
}

function hotPaths(project, count = HOT_DOCUMENTS) {
  return Array.from({ length: count }, (_, at) => `${documents(project)[0]}/d${at + 1}`);
}

/** A JSON document of exactly so many bytes, with members of several kinds. */
function documentOf(bytes) {
  const text = 'Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt. ';
  const members = {
    title: 'A document of the benchmark',
    author: { name: 'Ada Lovelace', email: 'ada@example.org', verified: true },
    tags: ['notes', 'draft', 'benchmark', '2026'],
    priority: 3,
    score: 0.87,
    updated_by: null,
    text: '',
  };
  const rest = bytes - JSON.stringify(members).length;
  return Buffer.from(
    JSON.stringify({ ...members, text: text.repeat(Math.ceil(rest / text.length)).slice(0, rest) }),
  );
}

function target(name, values, goal, direction) {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.floor((sorted.length - 1) / 2)];
  const met = direction === 'at least' ? value >= goal : value <= goal;
  targets.push({ name, value, values, goal, direction, met });
  say(`=> ${name}: ${figure(value)} (${direction} ${goal}) ${met ? 'met' : 'MISSED'}`);
}

function report() {
  const facts = {
    date: new Date().toISOString(),
    commit: execFileSync('git', ['describe', '--always', '--dirty'], { cwd: root, encoding: 'utf8' }).trim(),
    node: process.version,
    generator,
    cpus: `${cpus().length} × ${cpus()[0]?.model}`,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    mode: options.quick ? 'quick' : options.full ? 'full' : 'all cases',
  };
  const lines = [
    '# Benchmark',
    '',
    `${facts.date}, commit ${facts.commit}, Node ${facts.node}, ${facts.generator}, ${facts.cpus}, ${facts.memoryGb} GB. The load`,
    'generator shares the processors with what it measures: only ratios within one run mean something.',
    '',
    '| Target | Measured | Goal | | All turns |',
    '|---|---|---|---|---|',
    ...targets.map(
      ({ name, value, values, goal, direction, met }) =>
        `| ${name} | ${figure(value)} | ${direction} ${goal} | ${met ? 'met' : '**missed**'} | ${values.map(figure).join(', ')} |`,
    ),
    '',
    ...notes.map((note) => `- ${note}`),
    '',
    '| Case | KiB | Connections | Requests/s | p50 ms | p99 ms | Server CPU % | CPU µs each | Memory MB |',
    '|---|--:|--:|--:|--:|--:|--:|--:|--:|',
    ...cases.map(
      ({ name, kib, connections, perSecond, p50, p99, cpuPercent, cpuUs, rssMb }) =>
        `| ${name} | ${kib} | ${connections} | ${round(perSecond)} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${Math.round(cpuPercent)} | ${cpuUs.toFixed(1)} | ${Math.round(rssMb)} |`,
    ),
    '',
  ];
  const results = join(root, 'bench', 'results');
  mkdirSync(results, { recursive: true });
  writeFileSync(join(results, 'latest.md'), lines.join('\n'));
  writeFileSync(
    join(results, 'latest.json'),
    `${JSON.stringify({ facts, targets, cases, notes }, null, 2)}\n`,
  );
  console.log(lines.join('\n'));
}

function figure(value) {
  return value >= 100 ? String(Math.round(value)) : value.toFixed(2);
}

function round(value) {
  return String(Math.round(value));
}

function wanted(name) {
  return options.only === '' || options.only.split(',').includes(name);
}

async function keep(promise) {
  const service = await promise;
  if (service !== undefined) started.push(service);
  return service;
}

async function cleanUp() {
  for (const service of started.splice(0).reverse()) await service.stop();
  rmSync(directory, { recursive: true, force: true });
}

function say(text) {
  process.stderr.write(`bench: ${text}\n`);
}
