// Updates, deletes, batches and queries over a bounded set of documents for `--minutes`. A service with a
// leak ends with more memory or descriptors than after the fifth minute.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '../lib/client.mjs';
import { documents, quiet } from '../lib/documents.mjs';
import { ANSWERS, descriptors, Installation, mallocBytes, usage } from '../lib/processes.mjs';
import { round, say } from '../lib/report.mjs';

const PROJECTS = 60;
/** Documents in each project. No other ids are used, so that the number of tombstones is bounded too. */
const DOCUMENTS = 400;
const CONNECTIONS = 16;
/** Limits the work, so that a run on a busy machine does as much as on an idle one. */
const REQUESTS_PER_SECOND = 400;
const OPERATIONS_IN_BATCH = 20;
const OWNERS = 40;
/** After this time caches are full and code is compiled. */
const SETTLED_AFTER_MIN = 5;
const TOLERANCE = 1.05;
/** Keys are fetched every two minutes, so that BunKMS has work too. */
const KEY_TTL_MS = 120_000;
const MINUTE_MS = 60_000;

/** The mix of requests. */
const MIX = [
  [0.4, update],
  [0.15, remove],
  [0.15, batch],
  [0.15, query],
  [0.1, read],
  [0.05, changes],
];

/** Memory and descriptors of both services at the end, relative to those after the fifth minute. */
export async function enduranceTarget({ report, directory, keep, minutes, bundoc: other, snapshots }) {
  if (minutes <= SETTLED_AFTER_MIN)
    throw new Error(
      `--minutes must be more than ${SETTLED_AFTER_MIN}: that is what the end is compared with`,
    );
  await quiet(other);
  const folder = join(directory, 'endurance');
  mkdirSync(folder);
  const env = snapshots === '' ? {} : { BENCH_SNAPSHOTS: snapshots, NODE_ENV: 'development' };
  const installation = await keep(
    Installation.start(folder, { BUNKMS_LEASE_TTL_MS: String(KEY_TTL_MS) }, ANSWERS),
  );
  const bundoc = await keep(installation.startBundoc(env, ANSWERS));
  const client = new Client(
    bundoc.url,
    installation.issueToken('client', 'docs:read docs:write docs:admin'),
    {
      connections: CONNECTIONS,
    },
  );
  await fillProjects(client);
  await quiet(bundoc);
  // Read every document, so that the cache is full from the beginning.
  for (let at = 0; at < PROJECTS; at++)
    await client.send('GET', `${documents(projectAt(at))[0]}?limit=${DOCUMENTS}`);

  const services = [
    ['Bundoc', bundoc],
    ['BunKMS', installation.kms],
  ];
  const samples = [];
  for (let minute = 1; minute <= minutes; minute++) {
    const requests = await load(client, MINUTE_MS);
    const sample = { minute, requests };
    const isShot = snapshots !== '' && (minute === SETTLED_AFTER_MIN || minute === minutes);
    for (const [name, service] of services) sample[name] = await take(service, isShot && service === bundoc);
    samples.push(sample);
    say(describe(sample));
  }

  report.note(
    `Endurance: ${minutes} minutes over ${PROJECTS} projects of ${DOCUMENTS} documents at most, ` +
      `${round(samples.reduce((sum, { requests }) => sum + requests, 0) / (minutes * 60))} requests a second. ${client.errorText()}`,
  );
  for (const sample of samples) report.note(describe(sample));
  const settled = samples[SETTLED_AFTER_MIN - 1];
  const end = samples.at(-1);
  for (const [name] of services) {
    for (const [what, of] of [
      ['resident memory', ({ rss }) => rss],
      ['heap', ({ heapUsed }) => heapUsed],
      ['memory outside the heap', ({ external }) => external],
      ['descriptors', ({ open }) => open],
    ])
      report.target(
        `${name}: ${what} after a GC, minute ${end.minute} / minute ${settled.minute}`,
        [of(end[name]) / of(settled[name])],
        TOLERANCE,
        'at most',
      );
  }
  if (client.errors > 0) report.target('requests that failed', [client.errors], 0, 'at most');
  client.close();
  await bundoc.stop();
  await installation.stop();
}

/** Creates every document, and an index in every other project. */
async function fillProjects(client) {
  for (let at = 0; at < PROJECTS; at++) {
    const project = projectAt(at);
    await client.send('PUT', `${documents(project)[0]}/d0`, { owner: 'owner-0' }, [201]);
    if (at % 2 === 0)
      await client.send(
        'PUT',
        collectionOf(project),
        { indexes: [{ name: 'by-owner', fields: ['owner', 'n'] }] },
        [200, 201],
      );
    for (let from = 0; from < DOCUMENTS; from += OPERATIONS_IN_BATCH) {
      const operations = Array.from({ length: OPERATIONS_IN_BATCH }, (_, one) => putOf(`d${from + one}`));
      await client.send('POST', `/v1/projects/${project}/batch`, { operations });
    }
  }
}

/** Sends requests at an even pace for `ms` milliseconds, and waits for all answers. @returns how many. */
async function load(client, ms) {
  const begun = performance.now();
  let sent = 0;
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      while (performance.now() - begun < ms) {
        const dueMs = (sent++ * 1_000) / REQUESTS_PER_SECOND;
        await sleep(Math.max(0, begun + dueMs - performance.now()));
        await pick()(client, projectAt(below(PROJECTS)));
      }
    }),
  );
  return sent;
}

/** The resources of an idle service after a garbage collection. */
async function take(service, snapshot) {
  await quiet(service);
  const { pid } = service;
  const busyMb = usage(pid).rssMb;
  const memory = await service.memory({ snapshot });
  return { ...memory, busyMb, malloc: mallocBytes(pid), open: descriptors(pid) };
}

function describe({ minute, requests, ...services }) {
  const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
  const figures = Object.entries(services).map(
    ([name, { rss, heapUsed, heapTotal, external, arrayBuffers, malloc, open, busyMb }]) =>
      `${name}: ${busyMb.toFixed(1)} MiB resident, ${mib(rss)} after a GC (heap ${mib(heapUsed)} of ${mib(heapTotal)}, ` +
      `outside ${mib(external)}, of which buffers ${mib(arrayBuffers)}; of malloc, in use or not, ${mib(malloc)}), ${open} descriptors`,
  );
  return `Minute ${minute}, ${requests} requests. ${figures.join('. ')}.`;
}

function update(client, project) {
  const { id, document } = putOf(idAt());
  return client.send('PUT', `${documents(project)[0]}/${id}`, document, [200, 201]);
}

function remove(client, project) {
  return client.send('DELETE', `${documents(project)[0]}/${idAt()}`, undefined, [204, 404]);
}

/** Only puts: a batch that deletes a missing document is refused as a whole. */
function batch(client, project) {
  const ids = new Set(Array.from({ length: OPERATIONS_IN_BATCH }, idAt));
  const operations = Array.from(ids, putOf);
  return client.send('POST', `/v1/projects/${project}/batch`, { operations });
}

function query(client, project) {
  return client.send('POST', `${collectionOf(project)}/query`, {
    where: { owner: `owner-${below(OWNERS)}` },
    orderBy: [{ field: 'n' }],
    limit: 20,
  });
}

function read(client, project) {
  return client.send('GET', `${documents(project)[0]}/${idAt()}`, undefined, [200, 404]);
}

function changes(client, project) {
  return client.send('GET', `/v1/projects/${project}/changes?limit=50`);
}

function putOf(id) {
  const length = 200 + below(1_200);
  const document = { owner: `owner-${below(OWNERS)}`, n: below(1_000_000), text: 'x'.repeat(length) };
  return { op: 'put', collection: 'notes', id, document };
}

function pick() {
  let left = Math.random();
  for (const [part, action] of MIX) {
    left -= part;
    if (left < 0) return action;
  }
  return update;
}

function collectionOf(project) {
  return documents(project)[0].replace(/\/documents$/, '');
}

function projectAt(at) {
  return `endurance-${at}`;
}

function idAt() {
  return `d${below(DOCUMENTS)}`;
}

function below(count) {
  return Math.floor(Math.random() * count);
}
