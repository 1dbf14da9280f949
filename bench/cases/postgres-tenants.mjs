// Many tenants on PostgreSQL, one project each, compared with documents that are sealed by hand on the same
// server.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { documentOf, fill, HOT_DOCUMENTS, quiet } from '../lib/documents.mjs';
import { Installation, startPeer, startPostgres } from '../lib/processes.mjs';
import { costOfTenants, ONE, ratesOverTenants } from '../lib/tenant-loads.mjs';
import { part, Tenants } from '../lib/tenants.mjs';
import { follow } from './feed.mjs';

const EVERY = Number.POSITIVE_INFINITY;
/** Goals relative to the rate of one tenant, by maximum number of tenants. */
const GOALS = {
  GET: [
    [600, 0.75],
    [EVERY, 0.7],
  ],
  create: [[64, 0.6]],
  memoryKib: 48,
};
const WRITES_BY_HAND = [
  [64, 1],
  [600, 0.9],
  [EVERY, 0.8],
];
/** Goals relative to the rate of documents sealed by hand, over the same number of tenants. */
const GOALS_BY_HAND = {
  GET: [
    [64, 1],
    [600, 1.5],
    [EVERY, 1.3],
  ],
  create: WRITES_BY_HAND,
  overwrite: WRITES_BY_HAND,
  patch: WRITES_BY_HAND,
};
const QUICK_TENANTS_MAX = 600;
const FOLLOWED = 200;
const FOLLOWED_WRITES_PER_SECOND = 500;
/** For two nodes, the server by hand, and monitoring. */
const CONNECTIONS_MAX = 80;

/** The parts for `--parts`, in this order. Tenants are always created. */
const PARTS = {
  cost: costOfTenants,
  rates: ratesBesideByHand,
  feed: feedOfAnotherNode,
  start: startWithTenants,
};
export const POSTGRES_TENANT_PARTS = Object.keys(PARTS);

export async function postgresTenantsTarget(bench) {
  const { report, keep, quick } = bench;
  const postgres = await keep(startPostgres(bench.directory, { connectionsMax: CONNECTIONS_MAX }));
  if (postgres === undefined) {
    report.note('PostgreSQL is **not installed** here: its tenants are missing.');
    return;
  }
  // A separate installation: one storage holds each key, and the tenants of files have the same names.
  const directory = join(bench.directory, 'tenants-on-postgres');
  mkdirSync(directory);
  const installation = await keep(Installation.start(directory));
  const steps = bench.tenants.filter((count) => !quick || count <= QUICK_TENANTS_MAX);
  const most = Math.max(...steps);
  const env = { BUNDOC_STORAGE: `${postgres.connectionString}?sslmode=disable` };
  const own = { ...bench, installation, token: installation.token };
  const tenants = new Tenants(own, { installation, most, env, database: postgres });
  const setting = {
    bench: own,
    report,
    tenants,
    most,
    postgres,
    env,
    goals: GOALS,
    steps: steps.filter((count) => count > 1),
    ...(quick ? { turns: 1, seconds: 3 } : { turns: 3, seconds: 4 }),
  };
  await part(report, 'tenants on PostgreSQL are made', () => makeTenants(setting));
  for (const [name, run] of Object.entries(PARTS))
    if (bench.parts.length === 0 || bench.parts.includes(name))
      await part(report, `tenants on PostgreSQL: ${name}`, () => run(setting));
  await tenants.bundoc?.stop();
  await installation.stop();
  await postgres.stop();
}

async function makeTenants({ report, tenants, most }) {
  await tenants.restart();
  const made = await tenants.make(`${most} tenants made on PostgreSQL`);
  report.target('PostgreSQL: tenants made a second', [made.perSecond], 350, 'at least');
  await tenants.sayState(`After ${most} tenants were made`);
}

async function ratesBesideByHand(setting) {
  const { bench, postgres, tenants, most } = setting;
  await tenants.restart();
  await fill(bench, tenants.bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  const byHand = await bench.keep(startPeer('postgres', postgres.connectionString));
  byHand.database = postgres;
  await tenants.make(`by hand on PostgreSQL: ${most} tenants made`, byHand);
  await fill(bench, byHand, ONE, HOT_DOCUMENTS, documentOf(1_024));
  const name = `by hand on PostgreSQL ${postgres.version}`;
  await ratesOverTenants(setting, ' on PostgreSQL', [{ name, server: byHand, goals: GOALS_BY_HAND }]);
  await byHand.stop();
}

/** Commits at one node reach followers of many projects at another. */
async function feedOfAnotherNode({ bench, report, tenants, most, env }) {
  const { installation, keep, quick } = bench;
  await tenants.restart();
  const other = await keep(installation.startBundoc(env));
  const count = Math.min(most, FOLLOWED);
  const projects = Array.from({ length: count }, (_, at) => `tenant-${at + 1}`);
  await tenants.readEach(`each of ${count} tenants once`, count, { silent: true });
  const p99s = [];
  for (let turn = 0; turn < 2; turn++) {
    const lag = await follow(bench, {
      name: `feed of another node, ${count} projects`,
      projects,
      perSecond: FOLLOWED_WRITES_PER_SECOND,
      writeTo: tenants.bundoc,
      readFrom: other,
      readers: count,
      seconds: quick ? 4 : 8,
    });
    p99s.push(lag.p99);
  }
  report.target(
    `PostgreSQL: feed of another node over ${count} followed projects p99, ms`,
    p99s,
    100,
    'at most',
  );
  await other.stop();
}

/** From the start of the process to `/ready`. */
async function startWithTenants({ report, tenants, most }) {
  const times = [];
  for (let turn = 0; turn < 3; turn++) {
    await tenants.readEach(`each of ${most} tenants once`, most, { silent: true });
    await quiet(tenants.bundoc);
    await tenants.bundoc.stop('SIGKILL');
    const begun = performance.now();
    await tenants.restart(undefined, { nodeArgs: [] });
    times.push((performance.now() - begun) / 1_000);
  }
  report.target(`PostgreSQL: start of a node with ${most} tenants until /ready, s`, times, 3, 'at most');
}
