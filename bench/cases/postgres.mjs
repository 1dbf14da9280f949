// The cases of Bundoc on PostgreSQL, beside what one would build without it on the same server.

import { documentOf, documents, fill, hotPaths } from '../lib/documents.mjs';
import { startPeer, startPostgres, usage } from '../lib/processes.mjs';

const HOT = 1_000;
const NODES = 3;

/** Get and create of one node / Fastify with documents sealed by hand; then three nodes, with their use of the processor. */
export async function postgresTarget(bench) {
  const { report, directory, keep, installation, token } = bench;
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) {
    report.note('PostgreSQL is **not installed** here: its cases are missing.');
    return;
  }
  const byHand = await keep(startPeer('postgres', postgres.connectionString));
  const env = { BUNDOC_STORAGE: postgres.connectionString };
  const nodes = [await keep(installation.startBundoc(env))];
  const [node] = nodes;
  const body = documentOf(1_024);
  for (const server of [byHand, node]) await fill(bench, server, 'pg-0', HOT, body);

  const common = { token, connections: 64, seconds: 4 };
  const get = { ...common, method: 'GET', paths: hotPaths('pg-0', HOT) };
  const create = { ...common, method: 'POST', paths: documents('pg-0'), body };
  const gets = await report.pairs(3, 'get, PostgreSQL', [node, get], ['get, sealed by hand', byHand, get]);
  report.target('PostgreSQL: get / sealed by hand', gets, 1, 'at least');
  const creates = await report.pairs(
    3,
    'create, PostgreSQL',
    [node, create],
    ['create, sealed by hand', byHand, create],
  );
  report.target('PostgreSQL: create / sealed by hand', creates, 1, 'at least');

  while (nodes.length < NODES) nodes.push(await keep(installation.startBundoc(env)));
  for (const other of nodes.slice(1)) await fill(bench, other, 'pg-0', 1, body);
  for (const [name, load] of [
    ['get', get],
    ['create', create],
  ])
    for (const some of [nodes.slice(0, 1), nodes]) await measureNodes(report, name, load, some);
  for (const server of [...nodes, byHand, postgres]) await server.stop();
}

/** So many nodes at once, the connections shared among them: requests a second, and processor time a request of the nodes. */
async function measureNodes(report, name, load, nodes) {
  const before = nodes.map(({ pid }) => usage(pid).cpuSeconds);
  const share = { ...load, connections: Math.floor(load.connections / nodes.length) };
  const all = await Promise.all(
    nodes.map((node, at) =>
      report.measured(`${name}, node ${at + 1} of ${nodes.length}`, node, share, { silent: true }),
    ),
  );
  const cpuSeconds = nodes.reduce((sum, { pid }, at) => sum + usage(pid).cpuSeconds - before[at], 0);
  const perSecond = all.reduce((sum, one) => sum + one.perSecond, 0);
  const requests = all.reduce((sum, one) => sum + one.requests, 0);
  report.note(
    `PostgreSQL, ${name}, ${nodes.length} node${nodes.length === 1 ? '' : 's'}: ${Math.round(perSecond)} requests/s, ${Math.round((cpuSeconds / requests) * 1e6)} µs of processor time a request.`,
  );
}
