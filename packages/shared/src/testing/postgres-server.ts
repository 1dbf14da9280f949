import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort } from './free-port.ts';
import { findProgram, PROGRAMS, pathOf } from './programs.ts';

const run = promisify(execFile);
const START_TIMEOUT_MS = 60_000;
const OUTPUT_BYTES_MAX = 1_073_741_824;
const SUPERUSER = 'postgres';
/** Clusters that no server has used, by version. */
const CLUSTERS = join(import.meta.dirname, '../../../../node_modules/.cache/postgres');

export interface PostgresServerOptions {
  /** Settings as in `postgresql.conf`. */
  readonly settings?: Readonly<Record<string, string>>;
  /**
   * With false (the default) nothing is synced. Then `kill -9` still loses nothing, but a power failure
   * would.
   */
  readonly durable?: boolean;
}

/** A database with its own role. */
export interface PostgresDatabase {
  readonly name: string;
  /** `postgres://role:password@127.0.0.1:port/database`. */
  readonly url: string;
}

/**
 * A real PostgreSQL server in a temporary folder, on a free loopback port. It lives as long as this process.
 *
 * Roles connect over TCP with a password (SCRAM); the superuser only over the socket in that folder.
 */
export class PostgresServer implements AsyncDisposable {
  readonly #programs: string;
  readonly #folder: string;
  readonly #options: PostgresServerOptions;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly port: number;
  #output = '';

  private constructor(programs: string, folder: string, port: number, options: PostgresServerOptions) {
    this.#programs = programs;
    this.#folder = folder;
    this.#options = options;
    this.port = port;
    const settings: Record<string, string> = {
      port: String(port),
      listen_addresses: '127.0.0.1',
      unix_socket_directories: folder,
      max_connections: '200',
      log_checkpoints: 'off',
      ...(options.durable ? {} : { fsync: 'off' }),
      ...options.settings,
    };
    const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const [program, ...first] = asPostgres([join(programs, 'postgres'), '-D', join(folder, 'data'), ...args]);
    this.#child = spawn(program as string, first, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#exited = once(this.#child, 'exit');
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (chunk) => {
        this.#output = `${this.#output}${String(chunk)}`.slice(-65_536);
      });
  }

  /** Creates a cluster and starts it. @throws when PostgreSQL is not installed, or does not start. */
  static async start(options: PostgresServerOptions = {}): Promise<PostgresServer> {
    const programs = pathOf('postgresql');
    if (programs === undefined) throw new Error(`${PROGRAMS.postgresql.title} is missing`);
    const folder = await newFolder();
    // Owners, modes and times as they are: PostgreSQL refuses a cluster that others may read.
    await run('cp', ['-Rp', await clusterOf(programs), join(folder, 'data')]);
    return PostgresServer.#started(programs, folder, options);
  }

  static async #started(programs: string, folder: string, options: PostgresServerOptions) {
    const server = new PostgresServer(programs, folder, await freePort(), options);
    const onExit = () => server.#child.kill('SIGKILL');
    process.once('exit', onExit);
    void server.#exited.then(() => process.off('exit', onExit));
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!(await server.#answers())) {
      if (!server.running || Date.now() > deadline) {
        await server[Symbol.asyncDispose]();
        throw new Error(`PostgreSQL did not start:\n${server.#output}`);
      }
      await sleep(25);
    }
    return server;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The end of its log. */
  get log(): string {
    return this.#output;
  }

  /** Creates a role and its database, both with this name. */
  async createDatabase(name: string): Promise<PostgresDatabase> {
    await this.sql(`CREATE ROLE "${name}" LOGIN PASSWORD '${name}'`);
    await this.sql(`CREATE DATABASE "${name}" OWNER "${name}"`);
    return { name, url: this.urlOf(name) };
  }

  /** The URL of a database from {@link createDatabase}, here or on the server that this one replicates. */
  urlOf(database: string, port = this.port): string {
    return `postgres://${database}:${database}@127.0.0.1:${port}/${database}`;
  }

  /**
   * Runs statements as superuser. @returns the output of `psql`: a line per row, with `|` between columns.
   */
  async sql(statements: string, database = SUPERUSER): Promise<string> {
    const { stdout } = await run(join(this.#programs, 'psql'), [
      ...['-h', this.#folder, '-p', String(this.port), '-U', SUPERUSER, '-d', database],
      ...['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-c', statements],
    ]);
    return stdout.trim();
  }

  /** The output of `pg_dump` for a database. */
  async dump(database: string): Promise<string> {
    const place = ['-h', this.#folder, '-p', String(this.port), '-U', SUPERUSER, database];
    const { stdout } = await run(join(this.#programs, 'pg_dump'), place, { maxBuffer: OUTPUT_BYTES_MAX });
    return stdout;
  }

  /**
   * Starts a standby. From then on, every commit of this server waits for it (`remote flush`).
   *
   * @param name unique among the standbys of this server.
   */
  async startStandby(name: string): Promise<PostgresServer> {
    const folder = await newFolder();
    const origin = `host=${this.#folder} port=${this.port} user=${SUPERUSER} application_name=${name}`;
    const backup = [join(this.#programs, 'pg_basebackup'), '-d', origin, '-D', join(folder, 'data')];
    await runAsPostgres([...backup, '--write-recovery-conf', '--checkpoint=fast', '--no-sync']);
    const standby = await PostgresServer.#started(this.#programs, folder, this.#options);
    try {
      await this.sql(`ALTER SYSTEM SET synchronous_standby_names = '"${name}"'`);
      await this.sql('SELECT pg_reload_conf()');
      const deadline = Date.now() + START_TIMEOUT_MS;
      const inSync = `SELECT count(*) FROM pg_stat_replication WHERE application_name = '${name}' AND sync_state = 'sync'`;
      while ((await this.sql(inSync)) !== '1') {
        if (Date.now() > deadline) throw new Error(`the standby does not follow:\n${standby.log}`);
        await sleep(25);
      }
    } catch (error) {
      await standby[Symbol.asyncDispose]();
      throw error;
    }
    return standby;
  }

  /** Promotes a standby to primary. It waits for no standby until it gets one. */
  async promote(): Promise<void> {
    await this.sql('SELECT pg_promote(true)');
    await this.sql('ALTER SYSTEM RESET synchronous_standby_names');
    await this.sql('SELECT pg_reload_conf()');
  }

  /** Kills all its processes with SIGKILL, as if the machine had failed. */
  async kill(): Promise<void> {
    const { pid } = this.#child;
    const children = pid === undefined ? [] : childrenOf(pid);
    this.#child.kill('SIGKILL');
    for (const child of children) {
      try {
        process.kill(child, 'SIGKILL');
      } catch {
        // It has already exited.
      }
    }
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Immediate shutdown without a checkpoint: nobody uses this cluster again.
    if (this.running) this.#child.kill('SIGQUIT');
    await this.#exited;
    // After a kill, a process that is blocked on the disk may still write.
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20 });
  }

  async #answers(): Promise<boolean> {
    return this.running && (await this.sql('SELECT 1').catch(() => '')) === '1';
  }
}

/**
 * A command that runs as user `postgres`, because PostgreSQL refuses to run as root. It ends with the process
 * that started it.
 */
function asPostgres(command: readonly string[]): string[] {
  const guarded = ['setpriv', '--pdeathsig', 'KILL'];
  // Only Linux has it. Elsewhere a test that is killed leaves its server behind.
  if (userInfo().uid !== 0)
    return findProgram('setpriv') === undefined ? [...command] : [...guarded, ...command];
  return [...guarded, '--reuid', SUPERUSER, '--regid', SUPERUSER, '--init-groups', ...command];
}

/**
 * The folder of a new cluster. Every server of these programs begins with a copy of it: `initdb` takes half a
 * second of a processor, and a copy a tenth.
 */
async function clusterOf(programs: string): Promise<string> {
  const initdb = join(programs, 'initdb');
  const { stdout } = await run(initdb, ['--version']);
  const made = join(CLUSTERS, `${stdout.trim().replaceAll(/[^\w.]+/g, '-')}-${userInfo().uid}`);
  if (existsSync(made)) return made;
  const folder = await newFolder();
  try {
    const place = ['-D', join(folder, 'data'), '-U', SUPERUSER, '-E', 'UTF8', '--locale=C.UTF-8'];
    await runAsPostgres([initdb, ...place, '--auth-local=trust', '--auth-host=scram-sha-256', '--no-sync']);
    mkdirSync(CLUSTERS, { recursive: true });
    // Other processes see it whole, or not at all.
    const copy = mkdtempSync(`${made}.`);
    await run('cp', ['-Rp', join(folder, 'data'), copy]);
    try {
      renameSync(join(copy, 'data'), made);
    } catch (error) {
      if (!existsSync(made)) throw error;
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
    return made;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function runAsPostgres(command: readonly string[]): Promise<void> {
  const [program, ...args] = asPostgres(command);
  await run(program as string, args, { cwd: tmpdir() });
}

async function newFolder(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-pg-'));
  if (userInfo().uid === 0) await run('chown', [`${SUPERUSER}:${SUPERUSER}`, folder]);
  chmodSync(folder, 0o700);
  return folder;
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}
