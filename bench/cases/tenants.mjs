// Many tenants in one installation, one project each. The first part creates the tenants for all parts.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { documentOf, documents, fill, HOT_DOCUMENTS, hotPaths, quiet } from '../lib/documents.mjs';
import { dropPageCache, usageOfFolder } from '../lib/folders.mjs';
import { startPeer, startPostgres } from '../lib/processes.mjs';
import { round } from '../lib/report.mjs';
import { costOfTenants, noteCpu, ONE, ratesOverTenants } from '../lib/tenant-loads.mjs';
import { documentPaths, part, Tenants } from '../lib/tenants.mjs';
import { seeded, zipfPicks } from '../lib/zipf.mjs';
import { recordTarget } from './keys.mjs';
import { limitedDiskTarget } from './limited-disk.mjs';

/** Goals relative to the rate of one tenant, by maximum number of tenants. */
const GOALS = {
  GET: [
    [100, 0.9],
    [1_000, 0.85],
    [2_000, 0.8],
    [Number.POSITIVE_INFINITY, 0.7],
  ],
  create: [
    [64, 0.8],
    [2_000, 0.7],
    [Number.POSITIVE_INFINITY, 0.6],
  ],
  overwrite: [
    [64, 0.8],
    [2_000, 0.7],
    [Number.POSITIVE_INFINITY, 0.6],
  ],
  coldRead: 600,
  memoryKib: 48,
};
const QUICK_TENANTS_MAX = 1_000;
const MIB = 1_048_576;
const SMALL_CACHE_BYTES = 32 * MIB;
/** Room for few open tenants, so that nearly every one is closed before its next read. */
const FEW_OPEN_BYTES = 2 * MIB;
/** Fewer than the 1,000 keys of closed projects that Bundoc caches. */
const SPARE_KEYS = 900;
const MIXED_PICKS = 100_000;
const LOG_BYTES = 256 * MIB;
/** Minimum bytes in the log for a create of 1 KiB. */
const CREATE_LOG_BYTES = 1_100;

/** The parts for `--parts`, in this order. Tenants are always created. */
const PARTS = {
  cost: costOfTenants,
  // Before other parts write to the tenants, because opening reads the log after the catalog.
  'key-cached': firstReadsWithKeys,
  rates: ratesBesideOthers,
  'small-cache': ratesWithSmallCache,
  mixed: mixedLoad,
  start: startWithFullLog,
  one: oneTenant,
  disk: onLimitedDisk,
  record: ({ bench }) => recordTarget(bench),
};
export const TENANT_PARTS = Object.keys(PARTS);

export async function tenantsTarget(bench) {
  const { report, installation, quick } = bench;
  const steps = bench.tenants.filter((count) => !quick || count <= QUICK_TENANTS_MAX);
  const most = Math.max(...steps);
  await bench.bundoc.stop();
  const tenants = new Tenants(bench, { installation, most });
  const setting = {
    bench,
    report,
    tenants,
    most,
    goals: GOALS,
    steps: steps.filter((count) => count > 1),
    ...(quick ? { turns: 1, seconds: 3 } : { turns: 3, seconds: 4 }),
  };
  await part(report, 'tenants are made', () => makeTenants(setting));
  for (const [name, run] of Object.entries(PARTS))
    if (bench.parts.length === 0 || bench.parts.includes(name))
      await part(report, `tenants: ${name}`, () => run(setting));
  report.target('descriptors beside client connections, at most', [tenants.descriptorsMost], 99, 'at most');
  report.note(`Most descriptors beside client connections: ${tenants.descriptorsWhere}.`);
  await tenants.bundoc?.stop();
  bench.bundoc = await bench.keep(installation.startBundoc());
}

/** Creates tenants on a new service, and measures the disk usage of each. */
async function makeTenants({ bench, report, tenants, most }) {
  const { dataDir } = bench.installation;
  const bundoc = await tenants.restart();
  await quiet(bundoc);
  const before = usageOfFolder(dataDir, { except: ['log'] });
  const made = await tenants.make(`${most} tenants made`);
  report.target('tenants made a second', [made.perSecond], 150, 'at least');
  await quiet(bundoc);
  const after = usageOfFolder(dataDir, { except: ['log'] });
  report.target(
    'disk of a tenant with one 1 KiB document, KiB',
    [(after.bytes - before.bytes) / most / 1_024],
    24,
    'at most',
  );
  report.note(
    `A tenant with one document takes ${((after.inodes - before.inodes) / most).toFixed(1)} inodes. ${logText(dataDir)}`,
  );
  await tenants.sayState(`After ${most} tenants were made`);
}

/** Reads and writes over many tenants, relative to one tenant, a bare server and PostgreSQL by hand. */
async function ratesBesideOthers(setting) {
  const { bench, report, tenants, most } = setting;
  await tenants.restart();
  await fill(bench, tenants.bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  const postgres = await bench.keep(startPostgres(bench.directory));
  const byHand = postgres && (await bench.keep(startPeer('postgres', postgres.connectionString)));
  if (byHand === undefined) report.note('PostgreSQL is **not installed** here: its rows are missing.');
  else {
    await tenants.make(`by hand on PostgreSQL: ${most} tenants made`, byHand);
    await fill(bench, byHand, ONE, HOT_DOCUMENTS, documentOf(1_024));
  }
  const others = [
    { name: 'bare Fastify', server: bench.bare, kinds: ['GET', 'create'] },
    ...(byHand === undefined ? [] : [{ name: `by hand on PostgreSQL ${postgres.version}`, server: byHand }]),
  ];
  await ratesOverTenants(setting, '', others);
  await byHand?.stop();
  await postgres?.stop();
}

async function ratesWithSmallCache(setting) {
  const { bench, tenants } = setting;
  await tenants.restart({ cacheBytes: SMALL_CACHE_BYTES });
  await fill(bench, tenants.bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  await ratesOverTenants(setting, ', cache of 32 MiB', []);
}

/** 95 reads to 5 overwrites, of tenants with different loads. */
async function mixedLoad({ bench, report, tenants, most, turns, seconds }) {
  await tenants.restart();
  await fill(bench, tenants.bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  await tenants.readEach(`each of ${most} tenants once`, most, { silent: true });
  const mixOf = (paths) => {
    const random = seeded(13);
    const picks = zipfPicks(paths.length, 0.99, MIXED_PICKS, random);
    const mix = { reads: paths, writes: paths, picks: picks.map((pick) => (random() < 0.05 ? -pick : pick)) };
    return { mix, body: documentOf(1_024), seconds };
  };
  const one = mixOf(hotPaths(ONE));
  const many = mixOf(documentPaths(most));
  await tenants.measured('mixed, warm up', { ...one, seconds: 2 }, { silent: true });
  const ratios = [];
  const cpuRatios = [];
  for (let turn = 0; turn < turns; turn++) {
    const base = await tenants.measured('mixed 95/5, Zipf 0.99, 1 tenant', one);
    await quiet(tenants.bundoc);
    const all = await tenants.measured(`mixed 95/5, Zipf 0.99, ${most} tenants`, many);
    await quiet(tenants.bundoc);
    ratios.push(all.perSecond / base.perSecond);
    cpuRatios.push(base.cpuUs / all.cpuUs);
  }
  noteCpu(report, `mixed load over ${most} tenants`, cpuRatios);
  report.target(`mixed 95/5, Zipf 0.99 over ${most} tenants, of one`, ratios, 0.8, 'at least');
}

/**
 * Reads of closed projects with cached keys. Documents come from the disk, because there is no document
 * cache.
 */
async function firstReadsWithKeys({ report, tenants, most }) {
  const count = Math.min(most, SPARE_KEYS);
  await tenants.restart({ openBytes: FEW_OPEN_BYTES, cacheBytes: 0 });
  await tenants.readEach(`keys of ${count} tenants are fetched`, count, { silent: true });
  const rates = [];
  const before = await tenants.metrics();
  const openBefore = before.valueOf('bundoc_projects_open');
  for (let turn = 0; turn < 3; turn++)
    rates.push((await tenants.readEach('first GET of a tenant, key cached', count)).perSecond);
  const after = await tenants.metrics();
  const fetches = keyFetches(after) - keyFetches(before);
  report.target('first GET of a tenant, key cached, a second', rates, 1_500, 'at least');
  report.note(
    `Key cached: ${count} tenants three times in turn, ${openBefore} projects open beforehand, ` +
      `${after.valueOf('bundoc_projects_open')} afterwards, ${after.valueOf('bundoc_keys_cached')} keys kept. ` +
      `${fetches} keys were fetched${fetches > rates.length * count * 0.02 ? ': **the keys were not cached**' : ''}.`,
  );
  if (openBefore > count / 2) report.note('**Most of these tenants were open**: this is no first GET.');
}

function keyFetches(metrics) {
  return metrics.sumOf('bundoc_key_fetches_total');
}

/** Start time after the process was killed with a log of maximum length. */
async function startWithFullLog({ bench, report, tenants, most }) {
  const { installation, quick } = bench;
  await tenants.restart();
  await tenants.readEach(`each of ${most} tenants once`, most, { silent: true });
  const enough = LOG_BYTES / CREATE_LOG_BYTES;
  let created = 0;
  for (let rounds = 0; created < enough && rounds < (quick ? 1 : 12); rounds++)
    created += (
      await tenants.measured(`creates that fill the log, ${most} tenants`, tenants.creates(most, 10))
    ).requests;
  if (created < enough)
    report.note(`**The log was not filled**: ${created} creates of ${round(enough)} were made.`);
  const bytes = logText(installation.dataDir);
  const seconds = async (signal, prepare = () => undefined) => {
    await tenants.bundoc.stop(signal);
    prepare();
    const begun = performance.now();
    await tenants.restart(undefined, { nodeArgs: [] });
    return (performance.now() - begun) / 1_000;
  };
  const warm = [];
  for (let turn = 0; turn < 3; turn++) warm.push(await seconds('SIGKILL'));
  report.target(
    `start of ${most} tenants after kill -9 until /ready, page cache warm, s`,
    warm,
    3,
    'at most',
  );
  let isCold = false;
  const cold = await seconds('SIGKILL', () => {
    isCold = dropPageCache();
  });
  const orderly = await seconds('SIGTERM');
  report.note(
    `Start until /ready with ${most} tenants: ${isCold ? `${cold.toFixed(2)} s with a cold page cache (Node's own files included)` : 'the page cache could not be dropped'}, ` +
      `${orderly.toFixed(2)} s after an orderly stop. ${bytes}`,
  );
}

/** One tenant, relative to a bare server. */
async function oneTenant({ bench, report, tenants, turns, seconds }) {
  await tenants.restart();
  await fill(bench, tenants.bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  const read = { method: 'GET', paths: hotPaths(ONE), seconds };
  const create = { ...tenants.creates(1, 10), paths: documents(ONE) };
  for (const [name, load, goal] of [
    ['GET', read, 0.6],
    ['create in a burst of 10 s', create, 0.5],
  ]) {
    await tenants.measured('warm up', { ...load, seconds: 2 }, { silent: true });
    await tenants.measured('warm up', { ...load, seconds: 1 }, { silent: true, server: bench.bare });
    const ratios = [];
    for (let turn = 0; turn < turns; turn++) {
      await quiet(tenants.bundoc);
      const base = await tenants.measured(`bare Fastify: ${name}`, load, { server: bench.bare });
      ratios.push((await tenants.measured(`${name}, 1 tenant`, load)).perSecond / base.perSecond);
    }
    await quiet(tenants.bundoc);
    report.target(`one tenant: ${name}, of bare Fastify`, ratios, goal, 'at least');
  }
}

/** Uses separate services; those of the other parts are idle. */
async function onLimitedDisk({ bench, tenants, most }) {
  await tenants.bundoc.stop();
  await limitedDiskTarget(bench, most);
  await tenants.restart();
}

function logText(dataDir) {
  const log = join(dataDir, 'log');
  if (!existsSync(log)) return 'The data folder has no log.';
  return `The log of the data folder takes ${round(usageOfFolder(log).bytes / MIB)} MiB.`;
}
