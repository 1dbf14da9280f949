// An installation with many tenants: one project each, with one document.

import { renameSync } from 'node:fs';
import { documentOf, documents, quiet } from './documents.mjs';
import { failuresBetween, readMetrics } from './metrics.mjs';
import { ANSWERS, descriptors, descriptorsBesideClients } from './processes.mjs';
import { topOfProfile } from './profile.mjs';
import { say } from './report.mjs';

const CONNECTIONS = 64;
const PREFIX = '/v1/projects/tenant-';
const COLLECTION = '/collections/notes/documents';
const DOCUMENT = `${COLLECTION}/d1`;
const BODY = documentOf(1_024);
/** Writes to documents that are there. */
export const OVERWRITE = { method: 'PUT', body: BODY };
export const PATCH = {
  method: 'PATCH',
  body: Buffer.from('{"priority":4}'),
  type: 'application/merge-patch+json',
};
/** How long a request may wait when thousands of tenants are opened or created. */
const PATIENCE_S = 60;
/** Maximum retries to create tenants. */
const TRIES = 5;
/** Enough for 10,000 tenants at 2 per second. */
const COUNTED_SECONDS_MAX = 5_000;
const SAMPLE_MS = 1_000;

export class Tenants {
  #bench;
  #installation;
  #metricsToken;
  #env;
  #database;
  /** The running service. */
  bundoc;
  /** The largest number of tenants. */
  most;
  /** Maximum number of descriptors so far, without those of clients. */
  descriptorsMost = 0;
  /** The load in which there were that many, and what they were open on. */
  descriptorsWhere = '';

  /**
   * @param {object} what
   * @param {NodeJS.ProcessEnv} [what.env] for every start of the service
   * @param {object} [what.database] the database server of the service
   */
  constructor(bench, { installation, most, env = {}, database }) {
    this.#bench = bench;
    this.#installation = installation;
    this.#env = env;
    this.#database = database;
    this.#metricsToken = installation.issueToken('service', 'docs:metrics');
    this.most = most;
  }

  /** Restarts the service. @param {NodeJS.Signals} [signal] for the stop */
  async restart(settings = undefined, { signal = 'SIGTERM', nodeArgs = ANSWERS } = {}) {
    await this.bundoc?.stop(signal);
    const { profiles } = this.#bench;
    const full = { ...this.#env, ...(profiles === '' ? {} : { BENCH_PROFILES: profiles }) };
    this.bundoc = await this.#bench.keep(this.#installation.startBundoc(full, nodeArgs, settings));
    this.bundoc.database = this.#database;
    return this.bundoc;
  }

  metrics() {
    return readMetrics(this.bundoc.url, this.#metricsToken);
  }

  async openCount() {
    return (await this.metrics()).valueOf('bundoc_projects_open');
  }

  /**
   * Runs a load on Bundoc or on another server. Failed requests are counted, listed by status in the report,
   * and excluded from rates.
   *
   * @param {{ silent?: boolean, server?: object }} [options]
   */
  async measured(name, load, { silent = false, server } = {}) {
    const before = server === undefined ? await this.metrics() : undefined;
    const sampler = setInterval(() => this.#sampleDescriptors(name), SAMPLE_MS);
    const common = { token: this.#installation.token, connections: CONNECTIONS, tolerant: true };
    try {
      const full = { ...common, ...load };
      const run = () => this.#bench.report.measured(name, server ?? this.bundoc, full, { silent });
      const isProfiled = this.#bench.profiles !== '' && server === undefined && !silent;
      const row = isProfiled ? await this.#profiled(name, run) : await run();
      if (row.errors > 0 && before !== undefined) {
        const failures = failuresBetween(before, await this.metrics());
        this.#bench.report.note(
          `${name}: answers that failed, by status: ${failures === '' ? 'none' : failures}.`,
        );
      }
      return row;
    } finally {
      clearInterval(sampler);
    }
  }

  async #profiled(name, run) {
    const { result, profile } = await this.bundoc.profiled(run);
    const named = `${profile.replace(/\.cpuprofile$/, '')}-${name.replace(/[^\w]+/g, '-')}.cpuprofile`;
    renameSync(profile, named);
    this.#bench.report.note(`Profile of ${name}, main thread: ${topOfProfile(named).join(', ')}.`);
    return result;
  }

  /** Creates all tenants by putting their documents. @returns the results of the first try. */
  async make(name, server) {
    const load = { ...each(this.most, 'PUT'), body: BODY };
    const first = await this.measured(name, load, { server });
    let row = first;
    for (let tries = 1; row.errors > 0; tries++) {
      if (tries === TRIES) throw new Error(`${name}: there are still errors in try ${tries}`);
      row = await this.measured(`${name}, try ${tries + 1}`, load, { server });
    }
    return first;
  }

  /** Reads each of the first tenants once, which opens it if there is room. */
  readEach(name, count, options) {
    return this.measured(name, each(count, 'GET'), options);
  }

  /** Creates one document in each of the first tenants. */
  createEach(name, count) {
    return this.measured(name, {
      ...each(count, 'POST'),
      suffix: COLLECTION,
      body: BODY,
    });
  }

  /** The loads of readers, and of writers, of the first tenants. */
  reads(count, seconds) {
    return { method: 'GET', paths: documentPaths(count), seconds };
  }

  overwrites(count, seconds) {
    return { ...OVERWRITE, paths: documentPaths(count), seconds };
  }

  patches(count, seconds) {
    return { ...PATCH, paths: documentPaths(count), seconds };
  }

  creates(count, seconds) {
    const paths = Array.from({ length: count }, (_, at) => documents(`tenant-${at + 1}`)[0]);
    return { method: 'POST', paths, seconds, body: BODY, patienceS: PATIENCE_S };
  }

  /**
   * Waits until the service is quiet and its garbage is collected. @returns {Promise<number>} resident bytes.
   */
  async residentBytes() {
    await quiet(this.bundoc);
    await this.bundoc.memory();
    await quiet(this.bundoc);
    return (await this.bundoc.memory()).rss;
  }

  async sayState(when) {
    this.#sampleDescriptors(when);
    const { pid } = this.bundoc;
    this.#bench.report.note(
      `${when}: ${await this.openCount()} projects open, ${descriptors(pid)} descriptors.`,
    );
  }

  #sampleDescriptors(when) {
    const { pid, url } = this.bundoc;
    const kinds = descriptorsBesideClients(pid, Number(new URL(url).port));
    const count = kinds.values().reduce((sum, of) => sum + of, 0);
    if (count <= this.descriptorsMost) return;
    this.descriptorsMost = count;
    this.descriptorsWhere = `${when}: ${Array.from(kinds, ([kind, of]) => `${of} ${kind}`).join(', ')}`;
  }
}

/** The path of a document in each of the first tenants. */
export function documentPaths(count) {
  return Array.from({ length: count }, (_, at) => `${PREFIX}${at + 1}${DOCUMENT}`);
}

/** Each of the first tenants once. */
function each(count, method) {
  return {
    method,
    prefix: PREFIX,
    suffix: DOCUMENT,
    count,
    seconds: COUNTED_SECONDS_MAX,
    patienceS: PATIENCE_S,
  };
}

/** Runs a part of a case. A failure is reported and does not affect the other parts. */
export async function part(report, name, run) {
  say(`-- ${name}`);
  try {
    await run();
  } catch (error) {
    process.exitCode = 1;
    report.note(`**${name} broke off**: ${error.message}`);
    say(`-- ${name} broke off: ${error.stack}`);
  }
}
