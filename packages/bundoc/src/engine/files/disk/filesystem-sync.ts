import { execFile } from 'node:child_process';
import { stat, statfs } from 'node:fs/promises';
import { release } from 'node:os';
import { promisify } from 'node:util';
import { SyncHelper } from './sync-helper.ts';

const run = promisify(execFile);

/**
 * File systems whose `syncfs` makes contents, sizes and names durable on the device: ext4, XFS, Btrfs
 * (`statfs(2)`).
 */
const TRUSTED_TYPES: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x9123683e]);

/** The system calls; replaced in tests. */
export interface FilesystemSyncDeps {
  readonly deviceOf: (directory: string) => Promise<number>;
  /** Whether a sync of the file system of `directory` reports failed writes. */
  readonly isTrusted: (directory: string) => Promise<boolean>;
  /** Syncs the whole file system of `directory`; rejects when a write to it has failed. */
  readonly sync: (directory: string) => Promise<unknown>;
}

/** One sync of a file system. */
interface Round {
  started: boolean;
  readonly ended: Promise<unknown>;
}

/**
 * Makes all writes to a file system durable in one call instead of one for each file: `syncfs(2)`, through
 * `sync -f` of coreutils, because Node lacks the call. Per file it costs a tenth of an `fsync`.
 *
 * The kernel reports a failed write only once to callers of `syncfs`. So all callers here share their rounds,
 * and after the first failure this process stops using it. Each file is then synced separately, which reports
 * the failures of that file to every caller. (A report to another process that calls `syncfs` is lost to this
 * one.)
 */
export class FilesystemSync {
  readonly #ports: FilesystemSyncDeps;
  readonly #rounds = new Map<number, Round>();
  readonly #trusted = new Map<number, Promise<boolean>>();
  #failed = false;

  constructor(ports: FilesystemSyncDeps = systemPorts) {
    this.#ports = ports;
  }

  /**
   * @param directory a folder of the file system.
   * @returns false when `syncfs` is unreliable here; then nothing was made durable.
   * @throws the error of the sync when a write has failed.
   */
  async sync(directory: string): Promise<boolean> {
    const device = await this.#ports.deviceOf(directory);
    if (!(await this.#isTrusted(device, directory)) || this.#failed) return false;
    try {
      await this.#nextRound(device, directory);
      return true;
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  #isTrusted(device: number, directory: string): Promise<boolean> {
    let trusted = this.#trusted.get(device);
    if (trusted === undefined) {
      trusted = this.#ports.isTrusted(directory).catch(() => false);
      this.#trusted.set(device, trusted);
    }
    return trusted;
  }

  /** The round that has not started yet: a running one may miss the latest writes. */
  #nextRound(device: number, directory: string): Promise<unknown> {
    const last = this.#rounds.get(device);
    if (last !== undefined && !last.started) return last.ended;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const round: Round = { started: false, ended: promise };
    this.#rounds.set(device, round);
    const start = (): void => {
      round.started = true;
      this.#ports.sync(directory).then(resolve, reject);
    };
    if (last === undefined) start();
    else last.ended.then(start, reject);
    return promise;
  }
}

/** One for the process, because its folders are on few file systems. */
const helper = new SyncHelper();

const systemPorts: FilesystemSyncDeps = {
  deviceOf: async (directory) => (await stat(directory)).dev,
  isTrusted: async (directory) => {
    const [major = 0, minor = 0] = release().split('.').map(Number);
    const tellsOfFailures = process.platform === 'linux' && (major > 5 || (major === 5 && minor >= 8));
    if (!tellsOfFailures || !TRUSTED_TYPES.has((await statfs(directory)).type)) return false;
    // Other implementations of `sync` may sync all file systems and miss failures.
    const { stdout } = await run('sync', ['--version']);
    if (!stdout.includes('GNU coreutils')) return false;
    // While this process is still small.
    helper.start();
    return true;
  },
  sync: (directory) => helper.sync(directory),
};
