import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { openFileSource } from '@bundoc/shared/files/file-source';
import { freeBytesOf } from '@bundoc/shared/files/free-bytes';
import { publishPrivateFile } from '@bundoc/shared/files/private-file';
import { reasonOf } from '@bundoc/shared/logs/log-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { ageMs, type Clock, every, type Instant, instant } from '@bundoc/shared/runtime/clock';
import { SYSTEM } from '../records/caller.ts';
import type { StoreTrust } from '../trust/store-trust.ts';
import type { Vault } from '../vault/vault.ts';
import type { BackupDestination } from './backup-destination.ts';
import { listOf } from './errors.ts';
import { inSlices } from './pace.ts';
import { isSound, type Survey, surveyArchive } from './survey.ts';
import { type BackupDeps, type BackupFacts, createBackup } from './write-backup.ts';

export interface ScheduledBackupsOptions {
  readonly folder: BackupDestination;
  readonly store: BackupDeps['store'];
  readonly vault: Vault;
  readonly chainKey: KeyObject;
  readonly trust: Pick<StoreTrust, 'isSealed' | 'require'>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: { readonly backupFailures: { inc(): void } };
  /** {@link publishPrivateFile} unless a test makes it fail. */
  readonly publish?: typeof publishPrivateFile;
  /** {@link CLOSE_MS} unless a test sets it. */
  readonly closeMs?: number;
}

/** How often the folder is looked at, milliseconds. */
const LOOK_MS = 60_000;
/** Wait after a failure: it costs a record in the audit chain, and a full disk stays full for a while. */
const BACKOFF = { firstMs: 120_000, maxMs: 3_600_000 };
/** How long a folder may take nothing of a backup before the read of the store ends, milliseconds. */
const STALL_MS = 60_000;
/** How long the stop of the service waits for a folder that hangs, milliseconds. */
const CLOSE_MS = 2_000;
const MIB = 1_048_576;
const FULL: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);

/** The last failure. */
interface Failure {
  /** Names the fault, for comparison. */
  readonly fault: string;
  readonly at: Instant;
  readonly waitMs: number;
}

/**
 * Backs BunKMS up into a folder or an archive, whenever its newest backup is an hour old. A backup gets its
 * name once it is complete, durable and verified like by `bunkms backup verify`. If it lacks what is damaged
 * or lost in the store, the log names that, and no older one is removed: it may be the only one that has it.
 *
 * Several nodes may have one folder: a node does not write while it sees that another one does, nor within an
 * hour after it. Two that begin at the same moment both write, which is harmless. A folder that fails or
 * hangs delays only the backups. While the service is sealed, none is made.
 *
 * The work runs in slices on the event loop, so it delays requests by milliseconds.
 */
export class ScheduledBackups implements AsyncDisposable {
  readonly #options: ScheduledBackupsOptions;
  readonly #stopping = new AbortController();
  #timer: Disposable | undefined;
  #running: Promise<void> | undefined;
  /** What is being written. */
  #content: AsyncGenerator<Buffer> | undefined;
  /** Since when the folder has its last piece of it. */
  #takenAt: Instant | undefined;
  #isFolderMade = false;
  /** What the last one lacked. */
  #lacked: string | undefined;
  #failures = 0;
  #failure: Failure | undefined;

  constructor(options: ScheduledBackupsOptions) {
    this.#options = options;
  }

  /** Looks now and from now on. */
  start(): void {
    this.#timer = every(LOOK_MS, () => void this.run());
    void this.run();
  }

  /** Writes a backup if one is due. Concurrent calls share one run. Never rejects: failures are logged. */
  run(): Promise<void> {
    this.#endStalled();
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Ends a running backup, which leaves no file. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer?.[Symbol.dispose]();
    this.#stopping.abort();
    // A folder that hangs asks for no more of it, so it would hold the snapshot of the store for ever.
    void this.#content?.return(undefined).catch(() => undefined);
    const { closeMs = CLOSE_MS } = this.#options;
    await Promise.race([this.#running, delay(closeMs, undefined, { ref: false })]);
  }

  /**
   * Ends the read of the store for a folder that hangs. Its snapshot lets the write-ahead log grow, and the
   * store cannot remove destroyed keys from its files meanwhile.
   */
  #endStalled(): void {
    if (this.#takenAt === undefined || ageMs(this.#options.clock, this.#takenAt) < STALL_MS) return;
    this.#takenAt = undefined;
    void this.#content?.return(undefined).catch(() => undefined);
    this.#fail(new Error('the target has taken nothing of a backup for a minute'));
  }

  async #run(): Promise<void> {
    const { trust, clock, logger, folder } = this.#options;
    const { signal } = this.#stopping;
    const failure = this.#failure;
    if (signal.aborted || trust.isSealed) return;
    if (failure !== undefined && ageMs(clock, failure.at) < failure.waitMs) return;
    try {
      if (!(await this.#backUpIfDue())) return;
    } catch (error) {
      if (!signal.aborted) this.#fail(error, await this.#spaceAfter(error));
      return;
    }
    if (failure !== undefined) logger.info({ folder: folder.path }, 'BunKMS is backed up again');
    this.#failures = 0;
    this.#failure = undefined;
  }

  /** @returns false while another process writes a backup. */
  async #backUpIfDue(): Promise<boolean> {
    const { folder, clock } = this.#options;
    // Later it must be there: in the place of a disk that is gone, a new folder would hide that.
    if (!this.#isFolderMade) await folder.make();
    this.#isFolderMade = true;
    const { isFresh, isBeingWritten, left } = await folder.read(clock.now());
    await folder.remove(left);
    if (isFresh) return true;
    if (isBeingWritten) return false;
    await this.#write();
    return true;
  }

  /** @throws Error when it was not written. */
  async #write(): Promise<void> {
    const { folder, clock, store, vault, chainKey, trust, logger, metrics } = this.#options;
    const { publish = publishPrivateFile } = this.#options;
    const pace = inSlices(this.#stopping.signal);
    const path = folder.pathOf(clock.now());
    let facts: BackupFacts | undefined;
    let problem: string | undefined;
    const takes = (at: Instant | undefined) => {
      this.#takenAt = at;
    };
    // Begins once the file is open, so that a folder that fails costs no audit record.
    async function* content(): AsyncGenerator<Buffer> {
      const backup = await createBackup({ store, vault, chainKey, clock }, SYSTEM, () => undefined, pace);
      for await (const piece of backup.bytes) {
        takes(instant(clock));
        yield piece;
        takes(undefined);
      }
      facts = backup.facts();
    }
    this.#content = content();
    try {
      await publish(path, this.#content, async (temporary) => {
        await using source = await openFileSource(temporary);
        problem = problemOf(await surveyArchive(vault, source, { pace }), facts);
        // A fault that was found meanwhile may be in it.
        trust.require();
      });
      assert(facts !== undefined, 'a verified backup was read to its end');
      takes(instant(clock));
      await folder.ship?.(path, facts, () => takes(instant(clock)));
    } finally {
      takes(undefined);
    }
    const { surplus } = await folder.read(clock.now());
    if (problem === undefined) await folder.remove(surplus);
    else metrics.backupFailures.inc();
    if (problem !== undefined && problem !== this.#lacked)
      logger.warn(
        { folder: folder.path },
        `BunKMS is backed up, but incompletely; older backups stay: ${problem}`,
      );
    this.#lacked = problem;
  }

  /** On a full disk, the space that is left. A folder that hangs is not asked. */
  async #spaceAfter(error: unknown): Promise<{ readonly free_mib?: number }> {
    if (!FULL.has(String(Object(error).code))) return {};
    const free = await freeBytesOf(this.#options.folder.path).catch(() => undefined);
    return free === undefined ? {} : { free_mib: Math.floor(free / MIB) };
  }

  #fail(error: unknown, space: { readonly free_mib?: number } = {}): void {
    const { folder, clock, logger, metrics } = this.#options;
    metrics.backupFailures.inc();
    this.#failures++;
    // The message of a system's error has the random name of a temporary file.
    const { code } = Object(error) as { code?: unknown };
    const fault = typeof code === 'string' ? code : reasonOf(error);
    if (fault !== this.#failure?.fault)
      logger.warn({ err: error, folder: folder.path, ...space }, 'BunKMS was not backed up; trying again');
    this.#failure = { fault, at: instant(clock), waitMs: backoffMs(BACKOFF, this.#failures) };
  }
}

/** What of a backup would not work after a restore; undefined when all would. */
function problemOf(survey: Survey, facts: BackupFacts | undefined): string | undefined {
  const { chainFault, findings } = survey;
  const damaged = [
    ...findings.map(({ key, version, problem }) =>
      version === undefined ? `the key ${key} ${problem}` : `version ${version} of the key ${key} ${problem}`,
    ),
    ...(facts?.left_out ?? []).map((name) => `${name} is left out`),
  ];
  if (isSound(survey) && damaged.length === 0) return undefined;
  const chain =
    chainFault === undefined
      ? []
      : [`the audit chain is broken: record ${chainFault.seq} is ${chainFault.reason}`];
  return [...chain, listOf(damaged)].filter((part) => part !== '').join('; ');
}
