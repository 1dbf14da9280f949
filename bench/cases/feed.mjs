// The feed of changes: the delay between writes and their delivery.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { documentOf, documents, fill } from '../lib/documents.mjs';
import { usage } from '../lib/processes.mjs';

const clients = fileURLToPath(new URL('../lib/feed-clients.mjs', import.meta.url));
const READERS = 100;
const WRITES_PER_SECOND = 5_000;

/** From the time when a writer sends a document to the time when a reader has its change. */
export async function feedTarget(bench) {
  const { report, bundoc } = bench;
  const p99s = [];
  for (let round = 0; round < 2; round++) {
    const { p99 } = await follow(bench, {
      name: `feed, ${READERS} readers`,
      project: `p1-feed-${round}`,
      perSecond: WRITES_PER_SECOND,
      writeTo: bundoc,
      readFrom: bundoc,
    });
    p99s.push(p99);
  }
  report.target(
    `feed delivery p99, ${WRITES_PER_SECOND} writes/s, ${READERS} readers, ms`,
    p99s,
    50,
    'at most',
  );
  await follow(bench, {
    name: `feed, ${READERS} readers, with documents`,
    project: 'p1-feed-doc',
    perSecond: 1_000,
    query: '&include=doc',
    writeTo: bundoc,
    readFrom: bundoc,
  });
}

/**
 * Writes at a steady rate while readers follow.
 *
 * @param {object} what
 * @param {string} [what.project] created for this
 * @param {string[]} [what.projects] existing ones instead: written to and followed in turn
 * @param {object} what.writeTo the server for writes
 * @param {object} what.readFrom the server with the feed, which may be another node
 * @returns the delays of the changes, milliseconds.
 */
export async function follow(bench, what) {
  const { report, token } = bench;
  const { name, project, perSecond, writeTo, readFrom, query = '', readers = READERS, seconds = 8 } = what;
  const { projects = [project] } = what;
  if (project !== undefined) await fill(bench, writeTo, project, 1, documentOf(1_024));
  const feeds = projects.map((one) => `/v1/projects/${one}/changes?since=now${query}`);
  const reader = start({ url: readFrom.url, token, role: 'reader', paths: feeds, connections: readers });
  await once(reader, 'message');
  const servers = [...new Set([writeTo, readFrom])];
  const cpu = () => servers.reduce((sum, { pid }) => sum + usage(pid).cpuSeconds, 0);
  const before = cpu();
  const body = documentOf(1_024).toString();
  const load = { paths: projects.flatMap(documents), perSecond, seconds, connections: 64, body };
  const [written] = await once(start({ url: writeTo.url, token, role: 'writer', ...load }), 'message');
  await sleep(500);
  const cpuSeconds = cpu() - before;
  reader.send('stop');
  const [read] = await once(reader, 'message');
  if (written.refused > 0 || read.events !== written.requests)
    throw new Error(
      `${written.refused} of ${written.requests} writes were refused, and ${read.events} events arrived`,
    );
  report.row({
    name,
    kib: 1,
    connections: readers,
    ...read,
    perSecond: written.requests / written.seconds,
    cpuPercent: (cpuSeconds / written.seconds) * 100,
    cpuUs: (cpuSeconds / written.requests) * 1e6,
    rssMb: Math.max(...servers.map(({ pid }) => usage(pid).rssMb)),
  });
  return read;
}

function start(options) {
  return fork(clients, [JSON.stringify(options)]);
}
