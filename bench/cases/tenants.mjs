// Many tenants in one installation, each a project of its own. The parts share the tenants that the first one makes.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { documentOf, documents, fill, HOT_DOCUMENTS, hotPaths, quiet } from '../lib/documents.mjs';
import { dropPageCache, usageOfFolder } from '../lib/folders.mjs';
import { startPeer, startPostgres } from '../lib/processes.mjs';
import { round } from '../lib/report.mjs';
import { documentPaths, part, Tenants } from '../lib/tenants.mjs';
import { seeded, zipfPicks } from '../lib/zipf.mjs';
import { recordTarget } from './keys.mjs';
import { limitedDiskTarget } from './limited-disk.mjs';

/** Goals by the number of tenants, as parts of the rate of one: up to so many. */
const READ_GOALS = [
  [100, 0.9],
  [1_000, 0.85],
  [Number.POSITIVE_INFINITY, 0.7],
];
const CREATE_GOALS = [
  [64, 0.8],
  [1_000, 0.75],
  [Number.POSITIVE_INFINITY, 0.6],
];
const QUICK_TENANTS_MAX = 1_000;
/** A project with many documents: what a single tenant is. */
const ONE = 'tenant-one';
const MIB = 1_048_576;
const SMALL_CACHE_BYTES = 32 * MIB;
/** Room for few tenants at a time, so that nearly each one is closed when it is read again. */
const FEW_OPEN_BYTES = 2 * MIB;
/** Bundoc keeps 1,000 keys of projects that are not open. */
const SPARE_KEYS = 900;
const MIXED_PICKS = 100_000;
const LOG_BYTES = 256 * MIB;
/** Bytes of the log that a create of 1 KiB takes at least. */
const CREATE_LOG_BYTES = 1_100;

/** What can be chosen by `--parts`, in this order. Tenants are made in any case. */
const PARTS = {
  cost: costOfTenants,
  // Before the others write to the tenants: an opening reads what the log has behind the catalog.
  'key-cached': firstReadsWithKeys,
  rates: ratesOverTenants,
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
    ...{ bench, report, tenants, most, steps: steps.filter((count) => count > 1) },
    ...(quick ? { turns: 1, seconds: 3 } : { turns: 3, seconds: 4 }),
  };
  await part(report, 'tenants are made', () => makeTenants(setting));
  for (const [name, run] of Object.entries(PARTS))
    if (bench.parts.length === 0 || bench.parts.includes(name))
      await part(report, `tenants: ${name}`, () => run(setting));
  report.target('descriptors beside client connections, at most', [tenants.descriptorsMost], 99, 'at most');
  await tenants.bundoc?.stop();
  bench.bundoc = await bench.keep(installation.startBundoc());
}

/** Makes tenants on a fresh service, and measures what each takes on the disk. */
async function makeTenants({ bench, report, tenants, most }) {
  const { dataDir } = bench.installation;
  const bundoc = await tenants.restart();
  await quiet(bundoc);
  const before = usageOfFolder(dataDir, { except: ['log'] });
  const made = await tenants.make(`${most} tenants made`);
  report.target('tenants made a second', [made.perSecond], 400, 'at least');
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

/** First reads after a restart, and the memory of open tenants. */
async function costOfTenants({ report, tenants, most, seconds }) {
  await tenants.restart();
  // Code is compiled and connections are made, but no project is open: this one does not exist.
  await tenants.measured(
    'GET of a project that does not exist',
    { method: 'GET', paths: hotPaths('no-such-tenant', 1), seconds, expectsFailure: true },
    { silent: true },
  );
  const none = await tenants.residentBytes();
  const openBefore = await tenants.openCount();
  const first = await tenants.readEach('first GET of a tenant, key cold', most);
  report.target('first GET of a tenant, key cold, a second', [first.perSecond], 600, 'at least');
  const open = await tenants.openCount();
  const all = await tenants.residentBytes();
  report.target(
    'memory of an open tenant, KiB',
    [(all - none) / 1_024 / Math.max(1, open - openBefore)],
    48,
    'at most',
  );
  report.note(
    `After a GC ${round(none / MIB)} MiB were resident with ${openBefore} projects open, and ${round(all / MIB)} MiB with ${open}.`,
  );
  if (open < most) report.note(`**Only ${open} of ${most} tenants were open**: memory is of those.`);
  await tenants.sayState(`After one GET of each of ${most} tenants`);
}

/** Reads and creates over many tenants, of one tenant's, beside a bare server and PostgreSQL by hand. */
async function ratesOverTenants(setting) {
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
    ['bare Fastify', bench.bare],
    ...(byHand === undefined ? [] : [[`by hand on PostgreSQL ${postgres.version}`, byHand]]),
  ];
  await rates(setting, '', others);
  await byHand?.stop();
  await postgres?.stop();
}

async function ratesWithSmallCache(setting) {
  const { bench, tenants } = setting;
  await tenants.restart({ BUNDOC_CACHE_BYTES: String(SMALL_CACHE_BYTES) });
  await fill(bench, tenants.bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  await rates(setting, ', cache of 32 MiB', []);
}

async function rates(setting, suffix, others) {
  const { tenants, steps, seconds } = setting;
  const oneRead = { method: 'GET', paths: hotPaths(ONE), seconds };
  const oneCreate = { ...tenants.creates(1, seconds), paths: documents(ONE) };
  for (const [kind, one, loadOf, goals] of [
    ['GET', oneRead, (count) => tenants.reads(count, seconds), READ_GOALS],
    ['create', oneCreate, (count) => tenants.creates(count, seconds), CREATE_GOALS],
  ]) {
    await tenants.measured(`${kind}, warm up`, { ...one, seconds: 2 }, { silent: true });
    const ofOthers = [];
    for (const [name, server] of others) {
      const row = await tenants.measured(`${name}: ${kind}, 1 tenant`, one, { server });
      ofOthers.push([name, server, row.perSecond]);
    }
    for (const count of steps)
      await rateOver(setting, { kind, suffix, one, load: loadOf(count), goals, count, ofOthers });
  }
}

async function rateOver({ report, tenants, turns }, { kind, suffix, one, load, goals, count, ofOthers }) {
  const goal = goals.find(([most]) => count <= most)?.[1];
  await tenants.readEach(`each of ${count} tenants once`, count, { silent: true });
  const ratios = [];
  const cpuRatios = [];
  const own = [];
  for (let turn = 0; turn < turns; turn++) {
    const base = await tenants.measured(`${kind}, 1 tenant${suffix}`, one);
    await quiet(tenants.bundoc);
    const many = await tenants.measured(`${kind}, ${count} tenants${suffix}`, load);
    await quiet(tenants.bundoc);
    own.push(many.perSecond);
    ratios.push(many.perSecond / base.perSecond);
    cpuRatios.push(base.cpuUs / many.cpuUs);
  }
  report.target(`${kind} over ${count} tenants, of one${suffix}`, ratios, goal, 'at least');
  noteCpu(report, `${kind} over ${count} tenants${suffix}`, cpuRatios);
  await tenants.sayState(`After ${kind} over ${count} tenants${suffix}`);
  const mean = own.reduce((sum, rate) => sum + rate, 0) / own.length;
  for (const [name, server, oneRate] of ofOthers) {
    const { perSecond } = await tenants.measured(`${name}: ${kind}, ${count} tenants`, load, { server });
    report.note(
      `${name}, ${kind} over ${count} tenants: ${round(perSecond)}/s, ${(perSecond / oneRate).toFixed(2)} of one. ` +
        `Bundoc: ${round(mean)}/s, ${(mean / perSecond).toFixed(2)} of that.`,
    );
  }
}

/** What the rate would be of one tenant's if nothing else than Bundoc's processor time bounded both: it holds up best on a busy machine. */
function noteCpu(report, name, ratios) {
  const figures = ratios.map((ratio) => ratio.toFixed(2)).join(', ');
  report.note(`${name}, of one by Bundoc's processor time: ${figures}.`);
}

/** 95 reads to 5 overwrites, of tenants that are not equally busy. */
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

/** Reads of projects that are closed, whose keys are there. Their documents come from the disk, since there is no cache. */
async function firstReadsWithKeys({ report, tenants, most }) {
  const count = Math.min(most, SPARE_KEYS);
  await tenants.restart({ BUNDOC_OPEN_BYTES: String(FEW_OPEN_BYTES), BUNDOC_CACHE_BYTES: '0' });
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

/** How long a start takes after the process was killed with a log as long as it becomes. */
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
    await tenants.restart({}, { nodeArgs: [] });
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

/** One tenant, of a bare server. */
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

/** With services of its own; those of the other parts are idle. */
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
