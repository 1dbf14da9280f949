// The cases of Bundoc on PostgreSQL, compared with a simple solution without Bundoc on the same server.

import { availableParallelism } from 'node:os';
import { batchOf, documentOf, documents, fill, hotPaths } from '../lib/documents.mjs';
import { startPeer, startPostgres, usage } from '../lib/processes.mjs';
import { round } from '../lib/report.mjs';
import { follow } from './feed.mjs';

const HOT = 1_000;
const NODES = 3;
/** Operations of a measured batch. */
const BATCH = 100;
/** Processors that three nodes, PostgreSQL and the load need to be faster than one node. */
const PROCESSORS_FOR_NODES = 8;

/**
 * Get and create of one node / Fastify with documents sealed by hand; documents in batches / in single
 * creates.
 */
export async function postgresTarget(bench) {
  await withPostgres(bench, async (node, { postgres }) => {
    const { report, keep, token, quick } = bench;
    const byHand = await keep(startPeer('postgres', postgres.connectionString));
    const body = documentOf(1_024);
    for (const server of [byHand, node]) await fill(bench, server, 'pg-0', HOT, body);

    const [turns, seconds] = quick ? [2, 3] : [3, 4];
    const common = { token, connections: 64, seconds };
    const get = { ...common, method: 'GET', paths: hotPaths('pg-0', HOT) };
    const create = { ...common, method: 'POST', paths: documents('pg-0'), body };
    const gets = await report.pairs(
      turns,
      'get, PostgreSQL',
      [node, get],
      ['get, sealed by hand', byHand, get],
    );
    report.target('PostgreSQL: get / sealed by hand', gets, 1, 'at least');
    const byHandToo = ['create, sealed by hand', byHand, create];
    const creates = await report.pairs(turns, 'create, PostgreSQL', [node, create], byHandToo);
    report.target('PostgreSQL: create / sealed by hand', creates, 1, 'at least');

    // The same number of clients, each with many documents to write.
    const clients = { ...common, method: 'POST', connections: 8 };
    const batchBody = batchOf(body, BATCH);
    const batch = {
      ...clients,
      paths: ['/v1/projects/pg-0/batch'],
      body: batchBody,
      kib: batchBody.length / 1_024,
    };
    const ratios = await report.pairs(
      turns,
      `batch of ${BATCH} creates, PostgreSQL`,
      [node, batch],
      ['create, PostgreSQL', node, { ...clients, paths: documents('pg-0'), body }],
    );
    report.target(
      `PostgreSQL: documents/s in batches of ${BATCH} / in single creates, 8 connections`,
      ratios.map((ratio) => ratio * BATCH),
      5,
      'at least',
    );
    await byHand.stop();
  });
}

/**
 * Three nodes / one, with their processor time; the delay between commits at one node and followers at
 * another.
 */
export async function postgresNodesTarget(bench) {
  await withPostgres(bench, async (node, { env }) => {
    const { report, keep, installation, token, quick } = bench;
    const nodes = [node];
    while (nodes.length < NODES) nodes.push(await keep(installation.startBundoc(env)));
    const body = documentOf(1_024);
    await fill(bench, node, 'pg-0', HOT, body);
    for (const other of nodes.slice(1)) await fill(bench, other, 'pg-0', 1, body);

    const common = { token, connections: 63, seconds: quick ? 3 : 4 };
    for (const [name, load] of [
      ['get', { ...common, method: 'GET', paths: hotPaths('pg-0', HOT) }],
      ['create', { ...common, method: 'POST', paths: documents('pg-0'), body }],
    ]) {
      await measureNodes(report, name, { ...load, seconds: 1 }, nodes); // Warm up.
      const one = await measureNodes(report, name, load, nodes.slice(0, 1));
      const all = await measureNodes(report, name, load, nodes);
      const figures = [one, all].map(({ perSecond, cpuUs }) => `${round(perSecond)}/s, ${round(cpuUs)} µs`);
      report.note(
        `PostgreSQL, ${name}, one node and ${NODES}: ${figures.join(' and ')} of the nodes' processor time a request.`,
      );
      if (availableParallelism() >= PROCESSORS_FOR_NODES)
        report.target(
          `PostgreSQL: ${name}, ${NODES} nodes / one`,
          [all.perSecond / one.perSecond],
          1.5,
          'at least',
        );
    }

    const p99s = [];
    for (let turn = 0; turn < 2; turn++) {
      const lag = await follow(bench, {
        name: 'feed of another node, PostgreSQL',
        project: `pg-feed-${turn}`,
        perSecond: 500,
        writeTo: nodes[1],
        readFrom: nodes[2],
        readers: 20,
        seconds: quick ? 4 : 8,
      });
      p99s.push(lag.p99);
    }
    report.target(
      'PostgreSQL: feed lag between nodes p99, 500 writes/s, 20 readers, ms',
      p99s,
      100,
      'at most',
    );
    for (const other of nodes.slice(1)) await other.stop();
  });
}

/** Runs cases with a separate server and one node on it. */
async function withPostgres({ report, directory, keep, installation }, cases) {
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) {
    report.note('PostgreSQL is **not installed** here: its cases are missing.');
    return;
  }
  const env = { BUNDOC_STORAGE: `${postgres.connectionString}?sslmode=disable` };
  const node = await keep(installation.startBundoc(env));
  await cases(node, { postgres, env });
  await node.stop();
  await postgres.stop();
}

/**
 * Measures several nodes at once, with the connections divided among them: requests per second, and processor
 * time of the nodes per request.
 */
async function measureNodes(report, name, load, nodes) {
  const before = nodes.map(({ pid }) => usage(pid).cpuSeconds);
  const share = { ...load, connections: Math.floor(load.connections / nodes.length) };
  const all = await Promise.all(
    nodes.map((node, at) =>
      report.measured(`${name}, node ${at + 1} of ${nodes.length}`, node, share, { silent: true }),
    ),
  );
  const cpuSeconds = nodes.reduce((sum, { pid }, at) => sum + usage(pid).cpuSeconds - before[at], 0);
  const requests = all.reduce((sum, one) => sum + one.requests, 0);
  return {
    perSecond: all.reduce((sum, one) => sum + one.perSecond, 0),
    cpuUs: (cpuSeconds / requests) * 1e6,
  };
}
