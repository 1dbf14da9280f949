// A neighbour that reads, writes and queries its own small project during attacks by others.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ATTACKS, attackersDocuments } from '../lib/attacks.mjs';
import { Client } from '../lib/client.mjs';
import { readMetrics } from '../lib/metrics.mjs';
import { ANSWERS, usage } from '../lib/processes.mjs';
import { topOfProfile } from '../lib/profile.mjs';
import { say } from '../lib/report.mjs';

export { ATTACKS };

const PER_SECOND = 50;
/**
 * Projects of attackers: one with one token, one with the token of the neighbour, four with one token, and 64
 * with a token each.
 */
export const TEAMS = { one: 1, same: 1, four: 4, many: 64 };
const RSS_MIB_MAX = 1_200;
/** Requests of the neighbour that are shown, the slowest last. */
const SLOWEST = 12;
/** Shares whose use at the end of an attack is shown. */
const SHARES = ['places', 'bytes', 'connections', 'project_openings', 'page_reads'];

/**
 * Every attack by one attacker, by one with four projects, and by 64: its effect on a neighbour, and its
 * after-effects.
 */
export async function neighboursTarget(bench) {
  const { report, installation, keep, quick, full, profiles } = bench;
  await bench.bundoc.stop();
  const isProfiled = profiles !== '';
  const env = { BUNDOC_CONNECTIONS_PER_ADDRESS: '256', ...(isProfiled ? { BENCH_PROFILES: profiles } : {}) };
  const bundoc = await keep(installation.startBundoc(env, isProfiled ? ANSWERS : []));
  const seconds = bench.seconds ?? (full ? 30 : quick ? 3 : 10);
  const chosen = bench.attackers.length > 0 ? bench.attackers : Object.keys(TEAMS).slice(0, quick ? 3 : 4);
  const names = bench.attacks.length > 0 ? bench.attacks : Object.keys(ATTACKS);
  const hasMany = chosen.includes('many');
  const projects = Array.from({ length: hasMany ? TEAMS.many : TEAMS.four }, (_, n) => `attacker-${n}`);
  say('issuing tokens and filling the projects');
  const scopes = 'docs:read docs:write docs:admin';
  const [first, ...others] = projects;
  const openings = Array.from({ length: 96 }, (_, n) => `${first}-${n}`);
  const wide = installation.issueToken('client', scopes, [...projects.slice(0, TEAMS.four), ...openings]);
  const shared = installation.issueToken('client', scopes, ['neighbour', first, ...openings]);
  const teams = {
    one: [{ token: wide, project: first, address: '127.0.1.1' }],
    same: [{ token: shared, project: first, address: '127.0.1.1' }],
    four: projects.slice(0, TEAMS.four).map((project) => ({ token: wide, project, address: '127.0.1.1' })),
    many: [
      { token: wide, project: first, address: '127.0.1.1' },
      ...others.map((project, n) => ({
        token: installation.issueToken('client', scopes, [project]),
        project,
        address: `127.0.1.${n + 2}`,
      })),
    ],
  };
  const filling = new Client(bundoc.url, installation.issueToken('client', scopes), { connections: 4 });
  for (const project of projects)
    for (const [path, body] of attackersDocuments(project, names))
      await filling.send('PUT', path, JSON.parse(body), [200, 201]);
  if (filling.errors > 0) throw new Error(filling.errorText());
  filling.close();

  const apart = new Neighbour(bundoc.url, installation.issueToken('client', scopes, ['neighbour']));
  const sibling = new Neighbour(bundoc.url, shared);
  await apart.measure(3);
  const alone = await apart.measure(10);
  report.note(
    `The neighbour alone: p50 ${ms(alone.p50)}, p99 ${ms(alone.p99)}, at ${PER_SECOND} requests a second.`,
  );
  const metrics = installation.issueToken('service', 'docs:metrics');
  const worst = {
    refused: 0,
    p50: 0,
    rssMb: 0,
    left: 0,
    after: 0,
    p99: { one: 0, same: 0, four: 0, many: 0 },
  };
  for (const team of chosen)
    for (const name of names) {
      const attackers = teams[team];
      const neighbour = team === 'same' ? sibling : apart;
      const attack = () => attacked(bundoc, neighbour, { name, attackers, seconds, metrics });
      const { result: seen, profile } = isProfiled
        ? await bundoc.profiled(attack)
        : { result: await attack() };
      await sleep(2_000);
      const left = await heldOf(bundoc.url, metrics);
      const after = await neighbour.measure(2);
      const of = `${name}, ${attackers.length} attacker${attackers.length > 1 ? 's' : ''}${team === 'same' ? ' of the same token' : ''}`;
      const row = `${of}: p50 ${ms(seen.p50)}, p99 ${ms(seen.p99)} (${ms(seen.keptP99)} on kept connections), ${seen.refused} of ${seen.requests} refused, at most ${Math.round(seen.rssMb)} MiB, ${seen.cpuS.toFixed(1)} s of processor time, event loop's delay p99 ${ms(seen.delay.p99)}, max ${ms(seen.delay.max)}; 2 s later p50 ${ms(after.p50)}, ${left} holds.`;
      say(row);
      say(`slowest: ${seen.slowest.join('; ')}`);
      if (seen.refused > 0) say(`refused: ${seen.reasons.join('; ')}`);
      say(`Bundoc: ${seen.counts.join(', ')}`);
      if (profile !== undefined) say(`main thread: ${topOfProfile(profile, 30).join(', ')}`);
      report.note(row);
      worst.refused += seen.refused;
      worst.p50 = Math.max(worst.p50, seen.p50);
      worst.rssMb = Math.max(worst.rssMb, seen.rssMb);
      worst.left = Math.max(worst.left, left);
      worst.after = Math.max(worst.after, after.p50 / alone.p50);
      worst.p99[team] = Math.max(worst.p99[team], seen.p99);
    }
  for (const one of [apart, sibling]) one.close();
  report.target('neighbour’s requests refused or failed', [worst.refused], 0, 'at most');
  report.target('neighbour’s median in the worst attack, ms', [worst.p50], 2 * alone.p50 + 3, 'at most');
  report.target(
    'neighbour’s p99, one attacker, ms',
    [Math.max(worst.p99.one, worst.p99.four)],
    50,
    'at most',
  );
  if (chosen.includes('same'))
    report.target('neighbour’s p99, another project of its token, ms', [worst.p99.same], 100, 'at most');
  if (hasMany) report.target('neighbour’s p99, 64 attackers, ms', [worst.p99.many], 100, 'at most');
  report.target('resident memory of Bundoc, MiB', [worst.rssMb], RSS_MIB_MAX, 'at most');
  report.target('units held 2 s after an attack', [worst.left], 0, 'at most');
  report.target('neighbour’s median 2 s after an attack, of alone', [worst.after], 1.2, 'at most');
  await bundoc.stop();
  bench.bundoc = await keep(installation.startBundoc());
}

async function attacked(bundoc, neighbour, { name, attackers, seconds, metrics }) {
  const process = fork(fileURLToPath(new URL('../lib/attacker.mjs', import.meta.url)), { stdio: 'inherit' });
  const ended = once(process, 'exit');
  let rssMb = 0;
  // Reading the delay of the event loop resets it.
  const countsBefore = await readMetrics(bundoc.url, metrics);
  const before = usage(bundoc.pid);
  const watch = setInterval(() => {
    rssMb = Math.max(rssMb, usage(bundoc.pid).rssMb);
  }, 200);
  try {
    process.send({ name, url: bundoc.url, attackers });
    const seen = await neighbour.measure(seconds);
    const cpuS = usage(bundoc.pid).cpuSeconds - before.cpuSeconds;
    const counts = await readMetrics(bundoc.url, metrics);
    const delayOf = (name) => (counts.valueOf(`nodejs_eventloop_lag_${name}_seconds`) ?? 0) * 1_000;
    const delay = { p99: delayOf('p99'), max: delayOf('max') };
    return { ...seen, rssMb, cpuS, delay, counts: changesBetween(countsBefore, counts) };
  } finally {
    clearInterval(watch);
    if (process.connected) process.send('stop');
    await Promise.race([ended, sleep(5_000)]);
    process.kill('SIGKILL');
  }
}

/** What Bundoc did between two readings: answers by status, slices, and time of long work by kind. */
function changesBetween(before, after) {
  const statuses = before.statuses();
  const more = (name, label) => after.sumOf(name, label) - before.sumOf(name, label);
  const kinds = ['query', 'read', 'write', 'batch', 'patch', 'projection', 'changes', 'definition'];
  return [
    ...Array.from(after.statuses(), ([status, count]) => [
      `× ${status}`,
      count - (statuses.get(status) ?? 0),
    ]),
    ['slices', more('bundoc_work_slices_total')],
    ...kinds.map((kind) => [
      `s ${kind}`,
      Number(more('bundoc_work_seconds_total', `kind="${kind}"`).toFixed(2)),
    ]),
    ['cuts', more('bundoc_share_cuts_total')],
    ...SHARES.flatMap((share) => {
      const label = `share="${share}"`;
      return [
        [`held of ${share}`, after.sumOf('bundoc_share_held', label)],
        [`waiting for ${share}`, after.sumOf('bundoc_share_waiting', label)],
      ];
    }),
  ]
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${name}`);
}

/** Held units of all shares except connections, of which a scraper and the neighbour have some. */
async function heldOf(url, token) {
  const metrics = await readMetrics(url, token);
  const ofConnections = metrics.sumOf('bundoc_share_held', 'share="connections"');
  return metrics.sumOf('bundoc_share_held') - ofConnections;
}

/**
 * Sends requests at a fixed rate, half of them on new connections, and measures each from its scheduled time.
 */
class Neighbour {
  #url;
  #token;
  #kept = new Agent({ keepAlive: true, maxSockets: 8 });
  #count = 0;

  constructor(url, token) {
    this.#url = url;
    this.#token = token;
  }

  async measure(seconds) {
    const all = [];
    const sent = [];
    const beganMs = performance.now();
    for (let n = 0; n < seconds * PER_SECOND; n++) {
      const dueMs = beganMs + (n * 1_000) / PER_SECOND;
      await sleep(Math.max(0, dueMs - performance.now()));
      sent.push(
        this.#send(this.#count++).then((answer) => {
          all.push({ ...answer, atMs: dueMs - beganMs, tookMs: performance.now() - dueMs });
        }),
      );
    }
    await Promise.all(sent);
    all.sort((a, b) => a.tookMs - b.tookMs);
    const at = (share, of = all) => of[Math.min(of.length - 1, Math.floor(of.length * share))]?.tookMs;
    const kept = all.filter(({ isKept }) => isKept);
    const refusals = all.filter(({ isDone }) => !isDone);
    const refused = refusals.length;
    const reasons = [...Map.groupBy(refusals, ({ method, status }) => `${method} ${status}`)].map(
      ([reason, { length }]) => `${length} × ${reason}`,
    );
    const slowest = all
      .slice(-SLOWEST)
      .map(
        ({ method, connectMs, status, atMs, tookMs }) =>
          `${method} ${status} at ${Math.round(atMs)} in ${Math.round(tookMs)} ms${connectMs === undefined ? '' : ` (${Math.round(connectMs)} to connect)`}`,
      );
    return {
      requests: all.length,
      refused,
      reasons,
      slowest,
      p50: at(0.5),
      p99: at(0.99),
      keptP99: at(0.99, kept),
    };
  }

  close() {
    this.#kept.destroy();
  }

  #send(n) {
    const collection = '/v1/projects/neighbour/collections/notes';
    const id = Math.floor(n / 3) % 20;
    const [method, path, body] = [
      ['PUT', `${collection}/documents/${id}`, JSON.stringify({ n, group: id % 5, text: 'x'.repeat(500) })],
      ['GET', `${collection}/documents/${id}`],
      ['POST', `${collection}/query`, JSON.stringify({ where: { group: id % 5 } })],
    ][n % 3];
    const headers = {
      authorization: `Bearer ${this.#token}`,
      ...(body === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    };
    const agent = n % 2 === 0 ? this.#kept : false;
    const beganMs = performance.now();
    let connectMs;
    return new Promise((resolve) => {
      const end = (isDone, status) => resolve({ isDone, method, status, connectMs, isKept: agent !== false });
      const sent = request(`${this.#url}${path}`, { method, headers, agent, timeout: 30_000 }, (response) => {
        const isDone = response.statusCode < 400;
        let text = '';
        response.on('data', (chunk) => {
          if (!isDone) text += chunk;
        });
        response.on('end', () => end(isDone, isDone ? response.statusCode : reasonOf(response, text)));
        response.on('error', (error) => end(false, error.code));
      });
      sent.once('socket', (socket) => {
        if (socket.connecting)
          socket.once('connect', () => {
            connectMs = performance.now() - beganMs;
          });
      });
      sent.on('timeout', () => sent.destroy(new Error('timeout')));
      sent.on('error', (error) => end(false, error.code ?? error.message));
      sent.end(body);
    });
  }
}

/** Why an answer refuses a request: its status, and what its problem says. */
function reasonOf({ statusCode }, text) {
  const detail = /"detail":"([^"]*)"/.exec(text)?.[1];
  return detail === undefined ? statusCode : `${statusCode} (${detail})`;
}

function ms(value) {
  return `${value.toFixed(1)} ms`;
}
