// Many tenants in one installation, each a project of its own.

import { setTimeout as sleep } from 'node:timers/promises';
import { documentOf, documents, fill, HOT_DOCUMENTS, hotPaths, quiet } from '../lib/documents.mjs';
import { descriptors, usage } from '../lib/processes.mjs';
import { round } from '../lib/report.mjs';

/** Numbers of tenants, with the goals of reads and of creates as parts of the rate of one tenant. */
const STEPS = [
  { tenants: 64, get: 0.9, create: 0.8 },
  { tenants: 200, get: 0.9, create: 0.8 },
  { tenants: 1_000, get: 0.85, create: 0.75 },
  { tenants: 10_000, get: 0.7, create: 0.6 },
];
const TURNS = 2;
const PREFIX = '/v1/projects/tenant-';
const ONE = 'tenant-one';
/** Bundoc has no use for it. */
const COLLECT_SIGNAL = 'SIGWINCH';
/** A garbage collection on request, so that memory in use is not mixed with garbage. */
const COLLECTS = ['--expose-gc', '--import', `data:text/javascript,process.on("${COLLECT_SIGNAL}",()=>gc())`];

/** Reads and creates over many tenants, as parts of one tenant's rate in the same run; the cost of an open tenant. */
export async function tenantsTarget(bench) {
  const { report, keep, installation, quick, full } = bench;
  const most = full ? 10_000 : quick ? 200 : 1_000;
  const steps = STEPS.filter(({ tenants }) => tenants <= most);
  await bench.bundoc.stop();
  let bundoc = await keep(installation.startBundoc({}, COLLECTS));

  await fill(bench, bundoc, ONE, HOT_DOCUMENTS, documentOf(1_024));
  const suffix = '/collections/notes/documents/d1';
  const each = {
    prefix: PREFIX,
    suffix,
    count: most,
    token: bench.token,
    connections: 64,
    seconds: 3_000,
    patienceS: 60,
  };
  const made = await report.measured(`${most} tenants made`, bundoc, {
    ...each,
    method: 'PUT',
    body: documentOf(1_024),
  });
  report.target('tenants made a second', [made.perSecond], 400, 'at least');

  await bundoc.stop();
  bundoc = await keep(installation.startBundoc({}, COLLECTS));
  await settled(bundoc);
  const before = { ...usage(bundoc.pid), descriptors: descriptors(bundoc.pid) };
  const first = await report.measured('first GET of a tenant, key cold', bundoc, { ...each, method: 'GET' });
  report.target('first GET of a tenant, key cold, a second', [first.perSecond], 600, 'at least');
  const open = await openProjects(bundoc, bench);
  await settled(bundoc);
  const after = usage(bundoc.pid);
  const kib = ((after.rssMb - before.rssMb) * 1_024) / Math.max(1, open);
  report.target('memory of an open tenant, KiB', [kib], 48, 'at most');
  report.note(
    `After one read of each of ${most} tenants ${open} are open, with ${descriptors(bundoc.pid)} descriptors ` +
      `(${before.descriptors} before) and ${round(after.rssMb)} MB.`,
  );

  for (const { tenants, get } of steps) {
    const paths = Array.from({ length: tenants }, (_, at) => `${PREFIX}${at + 1}${suffix}`);
    const load = { token: bench.token, connections: 64, seconds: 4 };
    const one = { ...load, method: 'GET', paths: hotPaths(ONE) };
    const many = { ...load, method: 'GET', paths };
    report.target(
      `GET, ${tenants} tenants / one`,
      await report.pairs(TURNS, `GET, ${tenants} tenants`, [bundoc, many], ['GET, 1 tenant', bundoc, one]),
      get,
      'at least',
    );
    await quiet(bundoc);
    report.note(
      `After GETs over ${tenants} tenants ${await openProjects(bundoc, bench)} were open, with ${descriptors(bundoc.pid)} descriptors.`,
    );
  }
  for (const { tenants, create } of steps) {
    const load = { token: bench.token, connections: 64, seconds: 4, method: 'POST', body: documentOf(1_024) };
    const paths = Array.from({ length: tenants }, (_, at) => documents(`tenant-${at + 1}`)[0]);
    const ratios = [];
    for (let turn = 0; turn < TURNS; turn++) {
      const one = await report.measured('create, 1 tenant', bundoc, { ...load, paths: documents(ONE) });
      await quiet(bundoc);
      const many = await report.measured(`create, ${tenants} tenants`, bundoc, { ...load, paths });
      ratios.push(many.perSecond / one.perSecond);
      await quiet(bundoc);
    }
    report.target(`create, ${tenants} tenants / one`, ratios, create, 'at least');
    report.note(
      `After creates over ${tenants} tenants ${await openProjects(bundoc, bench)} were open, with ${descriptors(bundoc.pid)} descriptors.`,
    );
  }
  await bundoc.stop();
  bench.bundoc = await keep(installation.startBundoc());
}

/** Waits until a process is quiet and its garbage is collected. */
async function settled({ pid, child }) {
  await quiet({ pid });
  child.kill(COLLECT_SIGNAL);
  await sleep(500);
  await quiet({ pid });
}

/** Projects that a Bundoc has open, by its metrics. */
async function openProjects({ url }, { installation }) {
  const token = installation.issueToken('service', 'docs:metrics');
  const answer = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  return Number(/^bundoc_projects_open (\d+)$/m.exec(await answer.text())?.[1]);
}
