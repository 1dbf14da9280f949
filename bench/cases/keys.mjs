// The cases of BunKMS.

import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { documents } from '../lib/documents.mjs';
import { usageOfFolder } from '../lib/folders.mjs';
import { Installation } from '../lib/processes.mjs';
import { round } from '../lib/report.mjs';

const KEYS = 64;
const MANY_KEYS = 100_000;
const PAGE = 500;
/** 10,000 keys in use, each exported again after 60 to 90 % of 15 minutes. */
const RECORDS_PER_DAY = 1_300_000;
const SHIPPED_WITHIN_MS = 60_000;
/** Enough that partly filled pages of the store do not matter. */
const EXPORTS_MIN = 5_000;

/** Exports, each with its durable audit record. */
export async function exportTarget({ report, installation }) {
  const { kms } = installation;
  const token = installation.issueToken('service', 'kms:create_key kms:export_key');
  for (let at = 0; at < KEYS; at++) await createKey(kms.url, token, `bench-${at}`);
  const load = {
    url: kms.internalUrl,
    method: 'GET',
    paths: Array.from({ length: KEYS }, (_, at) => `/v1/export/bench-${at}`),
    token,
    connections: 64,
    seconds: 5,
    steady: true,
  };
  await report.measured('warm up', kms, { ...load, seconds: 2 }, { silent: true });
  const runs = [];
  for (let turn = 0; turn < 3; turn++)
    runs.push(await report.measured('export with a durable record', kms, load));
  report.target(
    'exports with a durable record, a second',
    runs.map(({ perSecond }) => perSecond),
    8_000,
    'at least',
  );
  report.target(
    'export p99, ms',
    runs.map(({ p99 }) => p99),
    25,
    'at most',
  );
}

/** The size of the record of one export in BunKMS's SQLite store, and in the shipped copy of the chain. */
export async function recordTarget({ report, directory, keep, quick }) {
  const folder = join(directory, 'records');
  mkdirSync(folder);
  const shipped = join(folder, 'shipped');
  const installation = await keep(Installation.start(folder, { BUNKMS_AUDIT_SHIP: `file:${shipped}` }));
  const { BUNKMS_DATA_DIR: dataDir } = installation.kmsEnv;
  const token = installation.issueToken('service', 'kms:create_key kms:export_key');
  for (let at = 0; at < KEYS; at++) await createKey(installation.kms.url, token, `record-${at}`);
  const load = (kms) => ({
    url: kms.internalUrl,
    method: 'GET',
    paths: Array.from({ length: KEYS }, (_, at) => `/v1/export/record-${at}`),
    token,
    connections: 64,
    seconds: quick ? 3 : 10,
  });
  // Only a closed store has everything in its main file.
  await installation.stop();
  const before = {
    bytes: usageOfFolder(dataDir).bytes,
    shippedBytes: statSync(shipped).size,
    head: installation.auditHead(),
  };
  const kms = await keep(installation.startKmsNode(dataDir));
  for (let exports = 0; exports < EXPORTS_MIN; )
    exports += (await report.measured('exports whose records are measured', kms, load(kms))).requests;
  await until(() => isShipped(shipped, installation.auditHead()));
  await kms.stop();
  const records = installation.auditHead() - before.head;
  const bytes = (usageOfFolder(dataDir).bytes - before.bytes) / records;
  const shippedBytes = (statSync(shipped).size - before.shippedBytes) / records;
  const gbPerDay = (bytes * RECORDS_PER_DAY) / 1e9;
  report.note(
    `The CRITICAL record of an export takes **${round(bytes)} bytes** of BunKMS's store and ${round(shippedBytes)} of the shipped copy, ` +
      `over ${records} records. ${RECORDS_PER_DAY / 1e6} million records a day are ${gbPerDay.toFixed(2)} GB a day and ` +
      `${round(gbPerDay * 365)} GB a year, and ${((shippedBytes * RECORDS_PER_DAY) / 1e9).toFixed(2)} GB a day of the copy.`,
  );
}

/** Whether the last line of a shipped chain is the newest record. */
function isShipped(path, head) {
  const last = readFileSync(path, 'utf8').trimEnd().split('\n').at(-1);
  return JSON.parse(last).seq === head;
}

async function until(condition) {
  const begun = performance.now();
  while (!condition()) {
    if (performance.now() - begun > SHIPPED_WITHIN_MS) throw new Error('the chain is not shipped in time');
    await sleep(200);
  }
}

/** Encryption of 1 KiB, compared with a bare server that returns the same body. */
export async function encryptTarget({ report, installation, bare }) {
  const { kms } = installation;
  const token = installation.issueToken('service', 'kms:create_key kms:encrypt kms:decrypt');
  const name = 'bench-encrypt';
  await createKey(kms.url, token, name);
  const body = { plaintext_b64: randomBytes(1_024).toString('base64') };
  const load = (path, sent) => ({
    method: 'POST',
    paths: [path],
    body: Buffer.from(JSON.stringify(sent)),
    token,
    connections: 64,
    seconds: 4,
  });
  const ratios = await report.pairs(
    3,
    'encrypt',
    [kms, load(`/v1/encrypt/${name}`, body)],
    ['bare POST of the same body', bare, load(documents('p1-0')[0], body)],
  );
  report.target('encrypt 1 KiB, of a bare echo', ratios, 0.4, 'at least');
  const { ciphertext_b64 } = await call(kms.url, 'POST', `/v1/encrypt/${name}`, token, body);
  await report.measured('decrypt', kms, load(`/v1/decrypt/${name}`, { ciphertext_b64 }));
}

/** Pages of a list of many keys: the last ones must not take longer than the first ones. */
export async function keysTarget({ report, installation }) {
  const { kms } = installation;
  const token = installation.issueToken('service', 'kms:create_key kms:read_key');
  const begun = performance.now();
  await atOnce(64, MANY_KEYS, (at) => createKey(kms.url, token, `many-${String(at).padStart(6, '0')}`));
  const creating = (performance.now() - begun) / 1_000;
  report.note(
    `Making ${MANY_KEYS} keys, each with its durable record, took ${creating.toFixed(0)} s (${Math.round(MANY_KEYS / creating)} a second).`,
  );
  const pages = [];
  for (let cursor = ''; cursor !== undefined; ) {
    const at = performance.now();
    const path = `/v1/keys?limit=${PAGE}${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`;
    const page = await call(kms.url, 'GET', path, token);
    pages.push(performance.now() - at);
    cursor = page.next_cursor;
  }
  const median = (some) => some.toSorted((a, b) => a - b)[Math.floor(some.length / 2)];
  report.note(
    `A page of ${PAGE} among ${MANY_KEYS} keys takes ${median(pages).toFixed(1)} ms (median of ${pages.length}).`,
  );
  report.target(
    'pages of 100k keys: the last 20 / the first 20',
    [median(pages.slice(-20)) / median(pages.slice(1, 21))],
    1.5,
    'at most',
  );
}

/** A rotation of the KEK over all keys of the previous case, while keys are exported. */
export async function kekTarget({ report, installation }) {
  const { kms } = installation;
  const token = installation.issueToken('service', 'kms:manage_kek kms:create_key kms:export_key');
  const load = {
    url: kms.internalUrl,
    method: 'GET',
    paths: Array.from({ length: KEYS }, (_, at) => `/v1/export/many-${String(at * 1_000).padStart(6, '0')}`),
    token,
    connections: 64,
  };
  await report.measured('warm up', kms, { ...load, seconds: 2 }, { silent: true });
  await report.measured('export, no rotation', kms, { ...load, seconds: 4 });
  installation.addKek();
  const begun = performance.now();
  await call(kms.url, 'POST', '/v1/kek/rotate', token);
  let isOver = false;
  const exporting = (async () => {
    while (!isOver) await report.measured('export while KEKs rotate', kms, { ...load, seconds: 4 });
  })();
  let status;
  do {
    await sleep(500);
    status = await call(kms.url, 'GET', '/v1/kek', token);
  } while (status.rotation.completed_at === undefined);
  const seconds = (performance.now() - begun) / 1_000;
  isOver = true;
  await exporting;
  report.note(
    `A rotation of the KEK over ${status.rotation.total} versions of keys took ${seconds.toFixed(1)} s.`,
  );
  report.target('KEK rotation of 100k keys while serving exports, s', [seconds], 60, 'at most');
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

function createKey(url, token, name) {
  return call(url, 'POST', '/v1/keys', token, { name, type: 'aes-256' });
}

/** @returns the answer's JSON. */
function call(url, method, path, token, body) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers = {
    authorization: `Bearer ${token}`,
    ...(text === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }),
  };
  return new Promise((resolve, reject) => {
    const sent = request(`${url}${path}`, { method, headers, agent }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => {
        const answer = Buffer.concat(parts).toString();
        if (response.statusCode >= 200 && response.statusCode < 300) resolve(JSON.parse(answer));
        else reject(new Error(`${method} ${path}: ${response.statusCode} ${answer}`));
      });
    });
    sent.on('error', reject);
    sent.end(text);
  });
}

/** Runs a task for 0 to `count - 1`, `width` at a time. */
export async function atOnce(width, count, task) {
  let next = 0;
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < count) await task(next++);
    }),
  );
}
