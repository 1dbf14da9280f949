// The feed of changes: how late what is written reaches those who follow.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { documentOf, documents, fill } from '../lib/documents.mjs';
import { usage } from '../lib/processes.mjs';

const clients = fileURLToPath(new URL('../lib/feed-clients.mjs', import.meta.url));
const READERS = 100;
const WRITES_PER_SECOND = 5_000;

/** From the moment at which a writer sends a document to the one at which a reader has its change. */
export async function feedTarget(bench) {
  const { report } = bench;
  const p99s = [];
  for (let round = 0; round < 2; round++) {
    const { p99 } = await follow(bench, `p1-feed-${round}`, '', WRITES_PER_SECOND);
    p99s.push(p99);
  }
  report.target(
    `feed delivery p99, ${WRITES_PER_SECOND} writes/s, ${READERS} readers, ms`,
    p99s,
    50,
    'at most',
  );
  await follow(bench, 'p1-feed-doc', '&include=doc', 1_000);
}

async function follow({ report, bundoc, token, ...bench }, project, query, perSecond) {
  await fill({ ...bench, token }, bundoc, project, 1, documentOf(1_024));
  const common = { url: bundoc.url, token };
  const path = `/v1/projects/${project}/changes?since=now${query}`;
  const reader = start({ ...common, role: 'reader', path, connections: READERS });
  await once(reader, 'message');
  const before = usage(bundoc.pid);
  const body = documentOf(1_024).toString();
  const seconds = 8;
  const load = { path: documents(project)[0], perSecond, seconds, connections: 64, body };
  const [written] = await once(start({ ...common, role: 'writer', ...load }), 'message');
  await sleep(500);
  const after = usage(bundoc.pid);
  reader.send('stop');
  const [read] = await once(reader, 'message');
  if (written.refused > 0 || read.events !== written.requests)
    throw new Error(`of ${written.requests} writes ${written.refused} were refused, ${read.events} came`);
  const cpuSeconds = after.cpuSeconds - before.cpuSeconds;
  report.row({
    name: `feed, ${READERS} readers${query === '' ? '' : ', with documents'}`,
    kib: 1,
    connections: READERS,
    ...read,
    perSecond: written.requests / written.seconds,
    cpuPercent: (cpuSeconds / written.seconds) * 100,
    cpuUs: (cpuSeconds / written.requests) * 1e6,
    rssMb: after.rssMb,
  });
  return read;
}

function start(options) {
  return fork(clients, [JSON.stringify(options)]);
}
