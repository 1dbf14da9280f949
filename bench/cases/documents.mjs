// The cases of Bundoc.

import { join } from 'node:path';
import {
  batchOf,
  documentOf,
  documents,
  filesWritten,
  fill,
  HOT_DOCUMENTS,
  hotPaths,
  quiet,
  timedGet,
} from '../lib/documents.mjs';
import { startPeer, startPostgres, usage } from '../lib/processes.mjs';
import { round, say } from '../lib/report.mjs';

const PROJECTS = 64;
/** Operations of a measured batch. */
const BATCH = 100;

/** Sealed GET from memory / bare Fastify GET of the same size. */
export async function getTarget({ report, bundoc, bare, token }) {
  const load = { method: 'GET', paths: hotPaths('p1-0'), token, connections: 64, seconds: 4 };
  const ratios = await report.pairs(3, 'sealed GET', [bundoc, load], ['bare Fastify GET', bare, load]);
  report.target('sealed GET / bare GET', ratios, 0.65, 'at least');
  const least = await report.measured('bare Fastify GET / (hello world)', bare, {
    ...load,
    paths: ['/'],
    seconds: 3,
  });
  report.note(`A bare Fastify GET of \`/\` without a document made ${round(least.perSecond)} requests/s.`);
}

/** Durable creates for ten seconds / bare Fastify echo of the same JSON. */
export async function createTarget(bench) {
  const { report, installation, bundoc, bare, token } = bench;
  const load = { method: 'POST', body: documentOf(1_024), token, connections: 64 };
  const ratios = [];
  for (let round = 0; round < 2; round++) {
    const echo = await report.measured('bare Fastify POST echo', bare, {
      ...load,
      paths: documents('p1-0'),
      seconds: 5,
    });
    const project = `p1-create-${round}`;
    await fill(bench, bundoc, project, 1, documentOf(1_024));
    const create = await report.measured('durable create, 10 s burst', bundoc, {
      ...load,
      paths: documents(project),
      seconds: 10,
    });
    ratios.push(create.perSecond / echo.perSecond);
    const ms = await filesWritten(installation, project, create.requests);
    report.note(
      `After a burst of ${create.requests} creates the last document file was written ${Math.round(ms)} ms later.`,
    );
  }
  report.target('durable create, 10 s burst / bare echo', ratios, 0.6, 'at least');
}

/** Durable batches of a hundred creates. */
export async function batchTarget({ report, bundoc, installation, token }) {
  const body = batchOf(documentOf(1_024), BATCH);
  const load = { method: 'POST', body, token, connections: 8, seconds: 5, kib: body.length / 1_024 };
  const rates = [];
  let documentsWritten = 0;
  for (let round = 0; round < 3; round++) {
    const batch = await report.measured(`batch of ${BATCH} creates`, bundoc, {
      ...load,
      paths: ['/v1/projects/p1-batch/batch'],
    });
    rates.push(batch.perSecond * BATCH);
    documentsWritten += batch.requests * BATCH;
    await filesWritten(installation, 'p1-batch', documentsWritten);
  }
  report.target(`documents/s in batches of ${BATCH}`, rates, 20_000, 'at least');
}

/** Creates in 64 projects in turn / in one. */
export async function projectsTarget(bench) {
  const { report, installation, bundoc, token } = bench;
  const many = Array.from({ length: PROJECTS }, (_, at) => `p1-many-${at}`);
  for (const project of many) await fill(bench, bundoc, project, 1, documentOf(1_024));
  const load = { method: 'POST', body: documentOf(1_024), token, connections: 64, seconds: 5 };
  const ratios = [];
  let written = 0;
  for (let round = 0; round < 2; round++) {
    const project = `p1-one-${round}`;
    await fill(bench, bundoc, project, 1, documentOf(1_024));
    const one = await report.measured('create, 1 project', bundoc, { ...load, paths: documents(project) });
    await filesWritten(installation, project, one.requests);
    const all = await report.measured('create, 64 projects', bundoc, {
      ...load,
      paths: many.flatMap((name) => documents(name)),
    });
    ratios.push(all.perSecond / one.perSecond);
    written += all.requests;
    await filesWritten(installation, many, written);
  }
  report.target('create, 64 projects / one', ratios, 0.7, 'at least');
}

/** Creates for a minute, until every document file is written / bare echo. */
export async function sustainedTarget(bench) {
  const { report, installation, bundoc, bare, token } = bench;
  const load = { method: 'POST', body: documentOf(1_024), token, connections: 64 };
  const echo = await report.measured('bare Fastify POST echo', bare, {
    ...load,
    paths: documents('p1-0'),
    seconds: 10,
  });
  await fill(bench, bundoc, 'p1-sustained', 1, documentOf(1_024));
  const begun = performance.now();
  const create = await report.measured('durable create, 60 s', bundoc, {
    ...load,
    paths: documents('p1-sustained'),
    seconds: 60,
  });
  await filesWritten(installation, 'p1-sustained', create.requests);
  const seconds = (performance.now() - begun) / 1_000;
  report.target(
    'sustained create, 60 s, every file on disk / bare echo',
    [create.requests / seconds / echo.perSecond],
    0.33,
    'at least',
  );
}

/** Every server, size and number of connections. */
export async function allCases(bench) {
  const { report, directory, keep, installation, bundoc, bare, token } = bench;
  const simple = await keep(startPeer('simple', join(directory, 'simple')));
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) report.note('PostgreSQL is **not installed** here: its rows are missing.');
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
      await report.measured('bare Fastify: GET', bare, get);
      await report.measured('bare Fastify: POST echo', bare, create);
      for (const [name, server] of servers) {
        await report.measured(`${name}: get hot`, server, get);
        await report.measured(`${name}: create`, server, create);
        await report.measured(`${name}: overwrite`, server, overwrite);
        if (server === bundoc) await quiet(bundoc);
      }
    }
  }
  for (const server of [sealedByHand, postgres, simple]) await server?.stop();

  const projects = Array.from({ length: PROJECTS }, (_, at) => `p1-many-${at}`);
  for (const project of projects) await fill(bench, bundoc, project, 16, documentOf(1_024));
  const paths = projects.flatMap((project) => hotPaths(project, 16));
  await report.measured('Bundoc: get hot, 64 projects', bundoc, {
    method: 'GET',
    paths,
    token,
    connections: 64,
    seconds: 3,
  });

  await bundoc.stop();
  const cold = await keep(installation.startBundoc({}, [], { cacheBytes: 0 }));
  for (const [size, kib] of [
    ['p1', 1],
    ['p16', 16],
  ])
    for (const connections of [1, 64, 256])
      await report.measured('Bundoc: get cold (no cache)', cold, {
        method: 'GET',
        paths: hotPaths(`${size}-0`),
        token,
        connections,
        seconds: 3,
        kib,
      });
  await cold.stop();
  bench.bundoc = await keep(installation.startBundoc());
}

/** Latency, memory and opening by the number of documents in a project. */
export async function sizes(bench) {
  const { report, keep, installation, token, full } = bench;
  const steps = [1_000, 100_000, ...(full ? [1_000_000] : [])];
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
      report.target('opening 100k documents, s', opened, 1, 'at most');
      report.note(
        `After kill -9, opening 100k documents took ${replayed[0].toFixed(2)} s (it replays the log).`,
      );
    }
    await quiet(bundoc);
    const paths = Array.from(
      { length: 5_000 },
      (_, at) => `${documents(project)[0]}/d${1 + ((at * 7_919) % count)}`,
    );
    const load = { method: 'GET', paths, token, connections: 64, seconds: 4, steady: true };
    await report.measured(`warm up, ${count} documents`, bundoc, { ...load, seconds: 2 }, { silent: true });
    const tries = [];
    for (let round = 0; round < 3; round++)
      tries.push((await report.measured(`get, project of ${count}`, bundoc, load)).p99);
    p99[count] = tries;
    await report.measured(`list of 100, project of ${count}`, bundoc, {
      ...load,
      paths: [`${documents(project)[0]}?limit=100`],
      connections: 8,
      seconds: 3,
    });
    if (count === 1_000_000) {
      report.target('resident memory at 1M documents, MB', [usage(bundoc.pid).rssMb], 700, 'at most');
      // Just opened, without leftovers of filling it.
      await bundoc.stop();
      bundoc = await keep(installation.startBundoc());
      const ms = await timedGet(bundoc.url, `${documents(project)[0]}/d1`, token);
      report.note(
        `Opening 1M documents took ${(ms / 1_000).toFixed(1)} s and ${Math.round(usage(bundoc.pid).rssMb)} MB.`,
      );
    }
    await bundoc.stop();
  }
  const ratio = (count) => p99[count].map((value, at) => value / p99[1_000][at]);
  report.target('GET p99 at 100k / at 1k documents', ratio(100_000), 1.5, 'at most');
  if (full) report.target('GET p99 at 1M / at 1k documents', ratio(1_000_000), 1.5, 'at most');
  else
    report.note(
      'The targets of a million documents and of 60 sustained seconds are measured with `--full` only.',
    );
}
