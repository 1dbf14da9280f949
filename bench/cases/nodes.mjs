// Several nodes of BunKMS on one PostgreSQL, compared with one on SQLite.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../lib/load.mjs';
import { Installation, startPostgres, usage } from '../lib/processes.mjs';

const KEYS = 64;
const CONNECTIONS = 64;
const SECONDS = 4;

/** Exports with durable records: by one node on SQLite, and by one and two nodes on PostgreSQL, in turns. */
export async function nodesTarget({ report, directory, keep, installation }) {
  const postgres = await keep(startPostgres(directory));
  if (postgres === undefined) return report.note('PostgreSQL is not installed: its nodes are left out.');
  const folder = join(directory, 'nodes');
  mkdirSync(folder, { mode: 0o711 });
  const shared = await keep(
    Installation.start(folder, { BUNKMS_STORAGE: `${postgres.connectionString}?sslmode=disable` }),
  );
  const second = await keep(shared.startKmsNode(join(folder, 'second')));
  const sqlite = await loadOf(installation, [installation.kms]);
  const loads = await loadOf(shared, [shared.kms, second]);
  const cases = [
    ['export, SQLite', sqlite],
    ['export, PostgreSQL, 1 node', loads.slice(0, 1)],
    ['export, PostgreSQL, 2 nodes', loads],
  ];
  for (const [, nodes] of cases) await atOnce(folder, nodes, 1);
  for (let turn = 0; turn < 3; turn++)
    for (const [name, nodes] of cases) report.row({ name, ...(await atOnce(folder, nodes, SECONDS)) });
}

/** The load of each node. */
async function loadOf(installation, nodes) {
  const token = installation.issueToken('service', 'kms:create_key kms:export_key');
  const [{ url }] = nodes;
  for (let at = 0; at < KEYS; at++)
    await fetch(`${url}/v1/keys`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ name: `node-${at}`, type: 'aes-256' }),
    });
  const paths = Array.from({ length: KEYS }, (_, at) => `/v1/export/node-${at}`);
  return nodes.map((node) => ({ node, load: { url: node.internalUrl, method: 'GET', paths, token } }));
}

/** Runs the load on all nodes at the same time, with the connections divided among them. */
async function atOnce(folder, nodes, seconds) {
  const cpu = () => nodes.reduce((sum, { node }) => sum + usage(node.pid).cpuSeconds, 0);
  const before = cpu();
  const results = await Promise.all(
    nodes.map(({ load }, at) => {
      const own = join(folder, `load-${at}`);
      mkdirSync(own, { recursive: true });
      return run(own, { ...load, connections: CONNECTIONS / nodes.length, seconds });
    }),
  );
  const sum = (of) => results.reduce((total, result) => total + of(result), 0);
  const cpuSeconds = cpu() - before;
  return {
    ...results[0],
    kib: 0,
    connections: CONNECTIONS,
    perSecond: sum(({ perSecond }) => perSecond),
    p50: Math.max(...results.map(({ p50 }) => p50)),
    p99: Math.max(...results.map(({ p99 }) => p99)),
    requests: sum(({ requests }) => requests),
    cpuPercent: (cpuSeconds / results[0].seconds) * 100,
    cpuUs: (cpuSeconds / sum(({ requests }) => requests)) * 1e6,
    rssMb: Math.max(...nodes.map(({ node }) => usage(node.pid).rssMb)),
  };
}
