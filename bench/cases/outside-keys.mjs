// Keys that customers hold: what their services cost, and what other projects notice when one is dead.

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '../lib/client.mjs';
import { Installation } from '../lib/processes.mjs';
import { round, say } from '../lib/report.mjs';
import { atOnce } from './keys.mjs';

const PROJECTS = 10_000;
const COLD_PROVIDERS_MS = [5, 30];
/** Requests a second for projects of customers, beside those that are timed. */
const BESIDE_PER_SECOND = 300;
/** Their requests under way; further ones are left out. */
const BESIDE_MAX = 512;
const ROUNDS = 3;
const WIDTH = 8;

const pathOf = (project) => `/v1/projects/${project}/collections/c/documents/d`;
const customerOf = (at) => `customer-${at}`;
const otherOf = (at) => `other-${at}`;

export async function outsideKeysTarget(bench) {
  const { report, keep, directory, quick } = bench;
  await bench.bundoc.stop();
  const count = quick ? 2_000 : PROJECTS;
  const provider = await keep(Provider.start());
  const installation = await keep(startInstallation(join(directory, 'outside'), provider.url));
  const world = { report, keep, installation, provider, count, timed: quick ? 1_000 : 3_000 };
  world.node = await keep(installation.startBundoc());
  await fillBoth(world);
  await coldKeys(world);
  await besideDeadProvider(world);
  await world.node.stop();
  await installation.stop();
  await provider.stop();
  bench.bundoc = await keep(bench.installation.startBundoc());
}

async function startInstallation(folder, url) {
  mkdirSync(folder);
  writeFileSync(join(folder, 'provider-token'), 'hvs.bench', { mode: 0o600 });
  const entry = { kind: 'transit', url, key: 'k', token_file: 'provider-token', create: ['customer-*'] };
  const file = join(folder, 'outside.json');
  writeFileSync(file, JSON.stringify({ keys: { bench: entry } }));
  return await Installation.start(folder, { BUNKMS_OUTSIDE_KEYS_FILE: file });
}

/** A document in each project. */
async function fillBoth({ installation, node, count, report }) {
  const client = new Client(node.url, installation.token);
  for (const [kind, nameOf] of [
    ['customers', customerOf],
    ['others', otherOf],
  ]) {
    say(`making ${count} projects of ${kind}`);
    const seconds = await timed(() =>
      atOnce(64, count, (at) => client.send('PUT', pathOf(nameOf(at)), { n: 1 }, [201])),
    );
    report.note(
      `Making ${count} projects of ${kind} took ${seconds.toFixed(1)} s (${round(count / seconds)}/s).`,
    );
  }
  report.note(`Filling: ${client.errorText()}`);
  client.close();
}

/** How long it takes until all projects were read after a restart, by the time that the provider takes. */
async function coldKeys(world) {
  const { report, provider, count, installation } = world;
  for (const [what, nameOf, delayMs] of [
    ['without an outside key', otherOf, 0],
    ...COLD_PROVIDERS_MS.map((ms) => [`under one outside key of ${ms} ms`, customerOf, ms]),
  ]) {
    provider.delayMs = delayMs;
    await restart(world);
    const client = new Client(world.node.url, installation.token);
    const seconds = await timed(() => atOnce(WIDTH, count, (at) => client.send('GET', pathOf(nameOf(at)))));
    report.note(
      `${count} cold keys ${what}: ${seconds.toFixed(1)} s, ${round(count / seconds)}/s. ${client.errorText()}`,
    );
    say(`${count} cold keys ${what}: ${seconds.toFixed(1)} s`);
    client.close();
  }
}

/**
 * Cold reads of other projects, and exports of other keys at BunKMS, beside the same rate of requests for
 * projects of customers: while their provider answers, and while it hangs.
 */
async function besideDeadProvider(world) {
  const { report, provider } = world;
  const ratios = { cold: [], export: [] };
  for (let turn = 0; turn < ROUNDS; turn++) {
    const p99 = {};
    for (const state of turn % 2 === 0 ? ['answers', 'hangs'] : ['hangs', 'answers']) {
      provider.delayMs = 5;
      await restart(world);
      provider.delayMs = state === 'hangs' ? undefined : 5;
      const beside = new Beside(world);
      // The pause has begun, or the keys in use are cached.
      await sleep(5_000);
      p99[state] = { cold: await coldReads(world), export: await exportTimes(world) };
      const answers = await beside.end();
      say(
        `provider ${state}: cold read p99 ${p99[state].cold.toFixed(1)} ms, export p99 ${p99[state].export.toFixed(1)} ms; beside: ${answers}, ${provider.calls} calls`,
      );
      report.note(
        `Turn ${turn + 1}, the provider ${state}: p99 of other cold reads ${p99[state].cold.toFixed(1)} ms, of other exports ${p99[state].export.toFixed(1)} ms. Requests for customers' projects: ${answers}; the provider got ${provider.calls} calls.`,
      );
    }
    for (const what of Object.keys(ratios)) ratios[what].push(p99.hangs[what] / p99.answers[what]);
  }
  report.target('cold reads of others beside a dead provider / a live one, p99', ratios.cold, 1.2, 'at most');
  report.target('exports of others beside a dead provider / a live one, p99', ratios.export, 1.2, 'at most');
}

/** @returns the 99th percentile, milliseconds. */
async function coldReads({ node, installation, timed: count }) {
  const client = new Client(node.url, installation.token);
  const times = await timesOf(count, (at) => client.send('GET', pathOf(otherOf(at))));
  if (client.errors > 0) throw new Error(client.errorText());
  client.close();
  return times;
}

/** The same at BunKMS, with the service token of Bundoc's kind. */
async function exportTimes({ installation, timed: count }) {
  const token = installation.issueToken('service', 'kms:export_key');
  const client = new Client(installation.kms.internalUrl, token);
  const times = await timesOf(count, (at) => client.send('GET', `/v1/export/${otherOf(at)}-dek`));
  if (client.errors > 0) throw new Error(client.errorText());
  client.close();
  return times;
}

async function timesOf(count, ask) {
  const times = [];
  await atOnce(WIDTH, count, async (at) => {
    times.push((await timed(() => ask(at))) * 1_000);
  });
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * 0.99)];
}

/** Requests for projects of customers, in turn, at a fixed rate. */
class Beside {
  #client;
  #statuses = new Map();
  #running = new Set();
  #timer;
  #at = 0;

  constructor({ node, installation, provider, count }) {
    provider.calls = 0;
    this.#client = new Client(node.url, installation.token, { connections: BESIDE_MAX });
    const ask = async () => {
      const { status } = await this.#client.send(
        'GET',
        pathOf(customerOf(this.#at++ % count)),
        undefined,
        [200, 503],
      );
      this.#statuses.set(status, (this.#statuses.get(status) ?? 0) + 1);
    };
    this.#timer = setInterval(() => {
      for (let n = 0; n < BESIDE_PER_SECOND / 50 && this.#running.size < BESIDE_MAX; n++) {
        const asked = ask().finally(() => this.#running.delete(asked));
        this.#running.add(asked);
      }
    }, 20);
  }

  /** @returns how many had which status. */
  async end() {
    clearInterval(this.#timer);
    await Promise.all(this.#running);
    this.#client.close();
    return Array.from(this.#statuses, ([status, number]) => `${number} × ${status}`).join(', ');
  }
}

async function restart(world) {
  await world.node.stop();
  world.node = await world.keep(world.installation.startBundoc());
}

async function timed(action) {
  const begun = performance.now();
  await action();
  return (performance.now() - begun) / 1_000;
}

/** The transit engine of OpenBao, as far as BunKMS uses it. */
class Provider {
  /** How long an answer takes; undefined while it hangs. */
  delayMs = 0;
  calls = 0;
  #key = randomBytes(32);
  #server;

  static async start() {
    const provider = new Provider();
    provider.#server = createServer((request, response) => void provider.#answer(request, response));
    await new Promise((resolve) => provider.#server.listen(0, '127.0.0.1', () => resolve(undefined)));
    provider.url = `http://127.0.0.1:${provider.#server.address().port}`;
    return provider;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request, response) {
    this.calls++;
    let text = '';
    for await (const part of request) text += part;
    if (this.delayMs === undefined) return;
    if (this.delayMs > 0) await sleep(this.delayMs);
    const { plaintext, ciphertext } = text === '' ? {} : JSON.parse(text);
    const data =
      plaintext === undefined
        ? ciphertext && { plaintext: this.#open(ciphertext) }
        : { ciphertext: this.#seal(plaintext) };
    response.end(JSON.stringify({ data: data ?? { ttl: 0, renewable: false } }));
  }

  #seal(plaintext) {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce);
    const sealed = Buffer.concat([
      nonce,
      cipher.update(plaintext, 'base64'),
      cipher.final(),
      cipher.getAuthTag(),
    ]);
    return `vault:v1:${sealed.toString('base64')}`;
  }

  #open(ciphertext) {
    const sealed = Buffer.from(ciphertext.slice('vault:v1:'.length), 'base64');
    const decipher = createDecipheriv('aes-256-gcm', this.#key, sealed.subarray(0, 12));
    decipher.setAuthTag(sealed.subarray(-16));
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString('base64');
  }
}
