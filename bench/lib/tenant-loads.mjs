// Measurements of many tenants on either engine.

import { documents, hotPaths, quiet } from './documents.mjs';
import { round } from './report.mjs';
import { OVERWRITE, PATCH } from './tenants.mjs';

/** A single tenant: a project with many documents. */
export const ONE = 'tenant-one';
const MIB = 1_048_576;

/** First reads after a restart, and the memory of open tenants. */
export async function costOfTenants({ report, tenants, most, seconds, goals }) {
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
  if (goals.coldRead !== undefined)
    report.target('first GET of a tenant, key cold, a second', [first.perSecond], goals.coldRead, 'at least');
  const open = await tenants.openCount();
  const all = await tenants.residentBytes();
  report.target(
    'memory of an open tenant, KiB',
    [(all - none) / 1_024 / Math.max(1, open - openBefore)],
    goals.memoryKib,
    'at most',
  );
  report.note(
    `After a GC ${round(none / MIB)} MiB were resident with ${openBefore} projects open, and ${round(all / MIB)} MiB with ${open}.`,
  );
  if (open < most) report.note(`**Only ${open} of ${most} tenants were open**: memory is of those.`);
  await tenants.sayState(`After one GET of each of ${most} tenants`);
}

/**
 * Reads and writes over many tenants, relative to one tenant and to other servers.
 *
 * @param {object} setting with `goals.GET`, `goals.create` and so on, each `[[most, share], …]`: relative
 *   to one tenant's rate, for at most `most` tenants
 * @param {string} suffix of the names of rows
 * @param {{ name: string, server: object, goals?: object, kinds?: string[] }[]} others servers with goals
 *   are measured in each turn, and Bundoc's rate is compared with theirs. Some only serve some kinds
 */
export async function ratesOverTenants(setting, suffix, others) {
  const { tenants, steps, seconds, goals } = setting;
  const oneRead = { method: 'GET', paths: hotPaths(ONE), seconds };
  const oneCreate = { ...tenants.creates(1, seconds), paths: documents(ONE) };
  for (const [kind, one, loadOf] of [
    ['GET', oneRead, (count) => tenants.reads(count, seconds)],
    ['create', oneCreate, (count) => tenants.creates(count, seconds)],
    ['overwrite', { ...oneRead, ...OVERWRITE }, (count) => tenants.overwrites(count, seconds)],
    ['patch', { ...oneRead, ...PATCH }, (count) => tenants.patches(count, seconds)],
  ]) {
    await tenants.measured(`${kind}, warm up`, { ...one, seconds: 2 }, { silent: true });
    const ofOthers = [];
    for (const { name, server, goals: against, kinds } of others) {
      if (kinds?.includes(kind) === false) continue;
      const row = await tenants.measured(`${name}: ${kind}, 1 tenant`, one, { server });
      ofOthers.push({ name, server, oneRate: row.perSecond, against: against?.[kind] });
    }
    for (const count of steps)
      await rateOver(setting, {
        kind,
        suffix,
        one,
        load: loadOf(count),
        goals: goals[kind],
        count,
        ofOthers,
      });
  }
}

async function rateOver({ report, tenants, turns }, { kind, suffix, one, load, goals, count, ofOthers }) {
  await tenants.readEach(`each of ${count} tenants once`, count, { silent: true });
  const ratios = [];
  const cpuRatios = [];
  const own = [];
  const theirs = ofOthers.map(() => []);
  for (let turn = 0; turn < turns; turn++) {
    const base = await tenants.measured(`${kind}, 1 tenant${suffix}`, one);
    await quiet(tenants.bundoc);
    const many = await tenants.measured(`${kind}, ${count} tenants${suffix}`, load);
    await quiet(tenants.bundoc);
    own.push(many);
    ratios.push(many.perSecond / base.perSecond);
    cpuRatios.push(base.cpuUs / many.cpuUs);
    for (const [at, { name, server, against }] of ofOthers.entries())
      if (turn === 0 || against !== undefined)
        theirs[at].push(await tenants.measured(`${name}: ${kind}, ${count} tenants`, load, { server }));
  }
  const ofOne = goals && goalOf(goals, count);
  if (ofOne !== undefined)
    report.target(`${kind} over ${count} tenants, of one${suffix}`, ratios, ofOne, 'at least');
  noteCpu(report, `${kind} over ${count} tenants${suffix}`, cpuRatios);
  await tenants.sayState(`After ${kind} over ${count} tenants${suffix}`);
  for (const [at, { name, oneRate, against }] of ofOthers.entries()) {
    const rows = theirs[at];
    const goal = against && goalOf(against, count);
    if (goal !== undefined) {
      const shares = rows.map(({ perSecond }, turn) => own[turn].perSecond / perSecond);
      report.target(`${kind} over ${count} tenants, of ${name}`, shares, goal, 'at least');
      report.note(
        `Processor time of a ${kind} over ${count} tenants: Bundoc ${costsOf(own)}; ${name} ${costsOf(rows)}.`,
      );
    }
    const mean = meanOf(own, 'perSecond');
    const perSecond = meanOf(rows, 'perSecond');
    report.note(
      `${name}, ${kind} over ${count} tenants: ${round(perSecond)}/s, ${(perSecond / oneRate).toFixed(2)} of one. ` +
        `Bundoc: ${round(mean)}/s, ${(mean / perSecond).toFixed(2)} of that.`,
    );
  }
}

function goalOf(goals, count) {
  return goals.find(([most]) => count <= most)?.[1];
}

function meanOf(rows, name) {
  return rows.reduce((sum, row) => sum + row[name], 0) / rows.length;
}

/** The processor time of the process and of its database. */
function costsOf(rows) {
  const database = rows[0].databaseUs === undefined ? undefined : meanOf(rows, 'databaseUs');
  const own = `${meanOf(rows, 'cpuUs').toFixed(1)} µs`;
  return database === undefined ? own : `${own} and ${database.toFixed(1)} µs of the database`;
}

/**
 * Notes the rate relative to one tenant if only Bundoc's processor time limited both. It varies least on a
 * busy machine.
 */
export function noteCpu(report, name, ratios) {
  const figures = ratios.map((ratio) => ratio.toFixed(2)).join(', ');
  report.note(`${name}, of one by Bundoc's processor time: ${figures}.`);
}
