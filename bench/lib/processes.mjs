// Starts, watches and stops the compared servers.

import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
} from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pathOf } from '../../packages/shared/src/testing/programs.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const CLOCK_TICKS_PER_SECOND = 100;
/** Node options that {@link Service.memory} and {@link Service.profiled} need. */
export const ANSWERS = ['--expose-gc', '--import', new URL('answer-signals.mjs', import.meta.url).href];
const ARENA_BYTES = 67_108_864n;
/** The state of a listening socket in /proc/net/tcp. */
const LISTENING = '0A';
const ANSWER_LINE = 'BENCH-ANSWER ';
/** It is long, because an answer may include a heap snapshot. */
const ANSWER_WITHIN_MS = 120_000;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** @type {Set<import('node:child_process').ChildProcess>} */
const children = new Set();
// However the benchmark ends, even during a start, none of its processes may keep running.
process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

/** A child process. Its output goes to standard error, or its first line is its URL. */
class Service {
  #onAnswer;

  constructor(name, command, args, { env = process.env, uid, gid, printsUrl = false } = {}) {
    this.name = name;
    this.child = spawn(command, args, {
      cwd: root,
      env,
      ...(uid === undefined ? {} : { uid, gid }),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.add(this.child);
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    void this.ended.then(() => children.delete(this.child));
    this.output = '';
    this.url = new Promise((resolve) => {
      createInterface({ input: this.child.stdout }).on('line', (line) => {
        if (printsUrl && line.startsWith('http')) resolve(line);
        else this.#keep(line);
      });
    });
    createInterface({ input: this.child.stderr }).on('line', (line) => {
      if (line.startsWith(ANSWER_LINE)) this.#onAnswer?.(JSON.parse(line.slice(ANSWER_LINE.length)));
      else this.#keep(line);
    });
  }

  /**
   * The memory of a service that was started with {@link ANSWERS}, after a garbage collection, in bytes.
   * `rss` is that of the process, the rest is that of its main thread.
   *
   * @param {{ snapshot?: boolean }} [options] also writes a heap snapshot to the folder `BENCH_SNAPSHOTS`
   */
  memory({ snapshot = false } = {}) {
    return this.#ask(snapshot ? 'SIGPWR' : 'SIGWINCH');
  }

  /**
   * Profiles the main thread of a service that was started with {@link ANSWERS} while something runs.
   *
   * @returns its result, and the path of the profile in the folder `BENCH_PROFILES`.
   */
  async profiled(run) {
    await this.#ask('SIGURG');
    const result = await run();
    const { profile } = await this.#ask('SIGURG');
    return { result, profile };
  }

  async #ask(signal) {
    const told = new Promise((resolve) => {
      this.#onAnswer = resolve;
    });
    this.child.kill(signal);
    const late = sleep(ANSWER_WITHIN_MS, undefined, { ref: false });
    const answer = await Promise.race([told, late, this.ended]);
    if (typeof answer !== 'object' || answer === null)
      throw new Error(`${this.name} does not answer ${signal}:\n${this.output}`);
    return answer;
  }

  #keep(line) {
    this.output = `${this.output}${line}\n`.slice(-8_192);
  }

  get pid() {
    return this.child.pid;
  }

  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async whenReady(url) {
    const deadline = Date.now() + 60_000;
    while (!(await answers(url))) {
      if (!this.running || Date.now() > deadline)
        throw new Error(`${this.name} did not start:\n${this.output}`);
      await sleep(20);
    }
  }

  /** @param {NodeJS.Signals} signal */
  async stop(signal = 'SIGTERM') {
    if (this.running) this.child.kill(signal);
    await Promise.race([this.ended, sleep(20_000, undefined, { ref: false })]);
    if (this.running) {
      process.stderr.write(`bench: ${this.name} did not exit within 20 s and is killed\n`);
      this.child.kill('SIGKILL');
    }
    await this.ended;
  }
}

function answers(url) {
  return new Promise((resolve) => {
    get(url, { agent: false, timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    })
      .on('timeout', (request) => request?.destroy())
      .on('error', () => resolve(false));
  });
}

/** BunKMS and Bundoc in a separate folder. */
export class Installation {
  #directory;
  /** BunKMS, with the `url` of its API listener and the `internalUrl`. */
  kms;

  constructor(directory) {
    this.#directory = directory;
    this.tokenFile = join(directory, 'kms-token');
    this.dataDir = join(directory, 'data');
  }

  /** @param {NodeJS.ProcessEnv} [kmsEnv] further variables of BunKMS. @param {string[]} [kmsNodeArgs] */
  static async start(directory, kmsEnv = {}, kmsNodeArgs = []) {
    const installation = new Installation(directory);
    await installation.#startKms(kmsEnv, kmsNodeArgs);
    installation.token = installation.issueToken('client', 'docs:read docs:write');
    return installation;
  }

  async #startKms(env, nodeArgs) {
    this.kmsEnv = {
      ...process.env,
      BUNKMS_DATA_DIR: join(this.#directory, 'kms'),
      BUNKMS_KEK_FILE: join(this.#directory, 'kek'),
      // No rate limits: the work is measured, not the limits.
      BUNKMS_EXPORTS_PER_TOKEN: '0',
      BUNKMS_READS_PER_TOKEN: '0',
      BUNKMS_CREATIONS_PER_TOKEN: '0',
      BUNKMS_CRYPTO_PER_SECOND: '0',
      ...env,
    };
    this.addKek();
    this.#cli('init', '--service-token', this.tokenFile);
    this.kms = await this.startKmsNode(this.kmsEnv.BUNKMS_DATA_DIR, nodeArgs);
  }

  /** Starts a node of BunKMS. With a shared store it is a further node on it. */
  async startKmsNode(dataDir, nodeArgs = []) {
    const [api, internal] = [await freePort(), await freePort()];
    const main = join(root, 'packages/bunkms/dist/main.js');
    const kms = new Service('BunKMS', process.execPath, [...nodeArgs, main], {
      env: {
        ...this.kmsEnv,
        BUNKMS_PORT: String(api),
        BUNKMS_INTERNAL_PORT: String(internal),
        BUNKMS_DATA_DIR: dataDir,
      },
    });
    kms.url = `http://127.0.0.1:${api}`;
    kms.internalUrl = `http://127.0.0.1:${internal}`;
    await kms.whenReady(`${kms.url}/ready`);
    return kms;
  }

  /** Appends a new KEK to the ring. */
  addKek() {
    appendFileSync(this.kmsEnv.BUNKMS_KEK_FILE, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  }

  /**
   * Issues a token with these scopes for all keys. @param {'client' | 'service'} typ @param {string} scopes
   */
  issueToken(typ, scopes, projects = ['*']) {
    return this.#cli(
      ...['token', 'issue', '--typ', typ, '--sub', 'bench', '--ttl', '4h', '--scope', scopes],
      ...(typ === 'client' ? projects.flatMap((project) => ['--project', project]) : ['--keys', '*']),
    );
  }

  /** The number of the newest record of BunKMS's audit chain. */
  auditHead() {
    return Number(this.#cli('audit', 'head').split(':')[0]);
  }

  #cli(...args) {
    const cli = join(root, 'packages/bunkms/dist/cli/main.js');
    const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args], {
      env: this.kmsEnv,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`bunkms ${args[0]} failed: ${stderr}`);
    return stdout.trim();
  }

  /**
   * Starts Bundoc. @param {NodeJS.ProcessEnv} env @param {string[]} nodeArgs @param {object} [settings] that
   * have no variable.
   */
  async startBundoc(env = {}, nodeArgs = [], settings = undefined) {
    const port = await freePort();
    const main = join(root, settings ? 'bench/servers/bundoc.mjs' : 'packages/bundoc/dist/main.js');
    const bundoc = new Service('Bundoc', process.execPath, [...nodeArgs, main], {
      env: {
        ...process.env,
        BUNDOC_PORT: String(port),
        BUNDOC_DATA_DIR: this.dataDir,
        BUNDOC_KMS_URL: this.kms.internalUrl,
        BUNDOC_KMS_TOKEN_FILE: this.tokenFile,
        // All clients of the load generator have the same address.
        BUNDOC_CONNECTIONS_PER_ADDRESS: '4096',
        ...(settings && { BENCH_SETTINGS: JSON.stringify(settings) }),
        ...env,
      },
    });
    bundoc.url = `http://127.0.0.1:${port}`;
    await bundoc.whenReady(`${bundoc.url}/ready`);
    return bundoc;
  }

  /** Number of document files of a project. */
  files(project) {
    const docs = join(this.dataDir, 'projects', project, 'docs');
    return existsSync(docs) ? readdirSync(docs).length : 0;
  }

  async stop() {
    await this.kms?.stop();
  }
}

/** One of the servers of `servers/peer.mjs`. */
export async function startPeer(mode, ...args) {
  const main = fileURLToPath(new URL('../servers/peer.mjs', import.meta.url));
  const peer = new Service(mode, process.execPath, [main, mode, ...args], { printsUrl: true });
  const url = await Promise.race([peer.url, peer.ended]);
  if (typeof url !== 'string') throw new Error(`the server "${mode}" did not start:\n${peer.output}`);
  peer.url = url;
  return peer;
}

/** PostgreSQL with its defaults, durable. @returns undefined where it is not installed. */
export async function startPostgres(directory, { connectionsMax = 50 } = {}) {
  const bin = pathOf('postgresql');
  if (bin === undefined) return undefined;
  const data = join(directory, `postgres-${randomBytes(4).toString('hex')}`);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  // PostgreSQL refuses to run as root.
  const user = process.getuid?.() === 0 ? userIds('postgres') : {};
  if (user === undefined) return undefined;
  if (user.uid !== undefined) {
    chownSync(data, user.uid, user.gid);
    chmodSync(directory, 0o711); // Its user must be able to traverse it; the other content is only for ours.
  }
  const made = spawnSync(join(bin, 'initdb'), ['-D', data, '-U', 'bench', '--auth=trust', '-E', 'UTF8'], {
    ...user,
    encoding: 'utf8',
  });
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}`);
  const port = await freePort();
  const args = ['-D', data, '-p', String(port), '-h', '127.0.0.1', '-k', data];
  args.push('-c', `max_connections=${connectionsMax}`);
  const postgres = new Service('PostgreSQL', join(bin, 'postgres'), args, user);
  const deadline = Date.now() + 20_000;
  while (spawnSync(join(bin, 'pg_isready'), ['-h', '127.0.0.1', '-p', String(port)]).status !== 0) {
    if (!postgres.running || Date.now() > deadline) throw new Error(`PostgreSQL: ${postgres.output}`);
    await sleep(100);
  }
  const told = spawnSync(join(bin, 'postgres'), ['--version'], { encoding: 'utf8' }).stdout;
  postgres.version = /\) (\d+)/.exec(told)?.[1] ?? told;
  postgres.connectionString = `postgres://bench@127.0.0.1:${port}/postgres`;
  return postgres;
}

function userIds(name) {
  const line = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, 'm').exec(readFileSync('/etc/passwd', 'utf8'));
  return line === null ? undefined : { uid: Number(line[1]), gid: Number(line[2]) };
}

/** Number of open descriptors of a process. Linux only: elsewhere 0. */
export function descriptors(pid) {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return 0;
  }
}

/**
 * Descriptors of a process without its connections from clients of a port, counted by what they are open on.
 * Linux only: elsewhere none.
 *
 * @returns {Map<string, number>}
 */
export function descriptorsBesideClients(pid, port) {
  const before = clientSockets(pid, port);
  const targets = entriesIn(`/proc/${pid}/fd`).map((fd) => targetOf(pid, fd));
  // Clients connect and leave while the descriptors are read.
  const clients = before.union(clientSockets(pid, port));
  const kinds = new Map();
  for (const target of targets) {
    if (target === undefined || clients.has(target)) continue;
    const kind = kindOf(target);
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
}

function clientSockets(pid, port) {
  const clients = new Set();
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  for (const table of ['tcp', 'tcp6'])
    for (const line of readIfThere(`/proc/${pid}/net/${table}`).split('\n').slice(1)) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      if (local?.endsWith(`:${hexPort}`) && state !== LISTENING) clients.add(`socket:[${inode}]`);
    }
  return clients;
}

/** @returns {string | undefined} undefined for a descriptor that has been closed. */
function targetOf(pid, fd) {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return undefined;
  }
}

function kindOf(target) {
  const [, folder] = /\/(projects|log)(?:\/|$)/.exec(target) ?? [];
  if (folder !== undefined) return `in ${folder}`;
  return /^(socket|pipe|anon_inode)/.exec(target)?.[1] ?? 'others';
}

function entriesIn(directory) {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/**
 * Resident bytes of the C library's `malloc`, in use or not: the `[heap]` and its arenas, which begin at
 * multiples of 64 MiB. Linux with glibc only: elsewhere 0.
 */
export function mallocBytes(pid) {
  let isOf = false;
  let kib = 0;
  for (const line of readIfThere(`/proc/${pid}/smaps`).split('\n')) {
    const mapping = /^([0-9a-f]+)-[0-9a-f]+ (\S+) \S+ \S+ \S+\s*(.*)$/.exec(line);
    if (mapping !== null) {
      const [, start, access, name] = mapping;
      const isArena = name === '' && access === 'rw-p' && BigInt(`0x${start}`) % ARENA_BYTES === 0n;
      isOf = name === '[heap]' || isArena;
    } else if (isOf) kib += Number(/^Rss:\s+(\d+) kB$/.exec(line)?.[1] ?? 0);
  }
  return kib * 1_024;
}

/** Processor seconds of the threads of a process, by name. Linux only: elsewhere empty. */
export function threadSeconds(pid) {
  const seconds = new Map();
  for (const thread of entriesIn(`/proc/${pid}/task`)) {
    const stat = readIfThere(`/proc/${pid}/task/${thread}/stat`);
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const used = (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
    if (Number.isFinite(used)) seconds.set(name, (seconds.get(name) ?? 0) + used);
  }
  return seconds;
}

/**
 * Processor seconds of a process and its children, including children that have exited. Linux only: elsewhere
 * 0.
 */
export function familySeconds(pid) {
  let ticks = 0;
  for (const name of entriesIn('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = readIfThere(`/proc/${name}/stat`);
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [, parent] = fields;
    if (Number(name) === pid) ticks += sum(fields.slice(11, 15));
    else if (Number(parent) === pid) ticks += sum(fields.slice(11, 13));
  }
  return ticks / CLOCK_TICKS_PER_SECOND;
}

function sum(numbers) {
  return numbers.reduce((total, one) => total + Number(one), 0);
}

/** Processor seconds of a process, and its resident memory. Linux only: elsewhere zeros. */
export function usage(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const rss = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND,
      rssMb: Number(rss) / 1_024,
    };
  } catch {
    return { cpuSeconds: 0, rssMb: 0 };
  }
}
