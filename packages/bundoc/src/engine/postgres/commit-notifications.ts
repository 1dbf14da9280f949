import type { Logger } from '@bundoc/shared/runtime/logger';
import pg from 'pg';
import type { Position } from '../port.ts';
import { configOf, type Database, type DatabaseOptions, type Statement } from './database/database.ts';

/** What a store needs of it. */
export interface CommitChannel {
  /**
   * Calls `onCommit` with the position of the project's latest commit, now and then, and soon after a commit
   * of any node.
   */
  watch(project: string, onCommit: (position: Position) => void): void;
  unwatch(project: string, onCommit: (position: Position) => void): void;
  /** Tells all nodes of a commit of this one. */
  committed(project: string, position: Position): void;
}

export interface CommitNotificationsOptions {
  readonly database: Database;
  /** For the connection that listens, unless it would go through a pooler. */
  readonly connection: DatabaseOptions;
  readonly logger: Logger;
  readonly timing?: CommitNotificationsTiming;
}

export interface CommitNotificationsTiming {
  /**
   * Commits of so many milliseconds are notified together: a notification in each transaction would halve the
   * throughput.
   */
  readonly tellEveryMs: number;
  /** How often it is looked itself: notifications are lost with their connection. */
  readonly lookEveryMs: number;
  /** The same, while nothing is listened to. */
  readonly lookAloneEveryMs: number;
}

const TIMING: CommitNotificationsTiming = { tellEveryMs: 25, lookEveryMs: 1_000, lookAloneEveryMs: 250 };
const CHANNEL = 'bundoc_commits';
/** A notification has 8,000 bytes at most, and a project's part 63 + 1 + 16 + 1. */
const PROJECTS_TOLD_AT_ONCE = 90;
const LISTEN_AGAIN_MS = 1_000;

const TELL: Statement = { name: 'bundoc-tell-1', text: `SELECT pg_notify('${CHANNEL}', $1)::text` };
const LOOK: Statement = {
  name: 'bundoc-look-1',
  text: 'SELECT project, seq FROM bundoc.heads WHERE project = ANY ($1::text[])',
};

/**
 * Tells commits between the nodes of one database: by NOTIFY, a few times a second whatever is
 * written, and by looking at the projects that somebody waits for. A notification may come late, twice or not
 * at all while the database does not answer; what happened is always read from the rows.
 *
 * One class, because telling, looking and listening serve the same watchers.
 */
export class CommitNotifications implements CommitChannel, AsyncDisposable {
  readonly #options: CommitNotificationsOptions;
  readonly #timing: CommitNotificationsTiming;
  readonly #watchers = new Map<string, Set<(position: Position) => void>>();
  readonly #untold = new Map<string, Position>();
  #telling: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;
  #listening: pg.Client | undefined;
  #listenAgain: NodeJS.Timeout | undefined;
  #isListening = false;
  #closed = false;
  /** Resolves once it listens, or that has failed for the first time. */
  readonly ready: Promise<void>;
  /** What is under way. */
  readonly #running = new Set<Promise<unknown>>();

  constructor(options: CommitNotificationsOptions) {
    this.#options = options;
    this.#timing = options.timing ?? TIMING;
    this.ready = this.#run(this.#listen());
  }

  watch(project: string, onCommit: (position: Position) => void): void {
    const watchers = this.#watchers.get(project) ?? new Set();
    this.#watchers.set(project, watchers.add(onCommit));
    this.#lookLater();
  }

  unwatch(project: string, onCommit: (position: Position) => void): void {
    const watchers = this.#watchers.get(project);
    watchers?.delete(onCommit);
    if (watchers?.size === 0) this.#watchers.delete(project);
  }

  committed(project: string, position: Position): void {
    this.#untold.set(project, position);
    if (this.#telling === undefined && !this.#closed)
      this.#telling = setTimeout(() => void this.#run(this.#tell()), this.#timing.tellEveryMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#looking);
    clearTimeout(this.#listenAgain);
    if (this.#telling !== undefined) {
      clearTimeout(this.#telling);
      void this.#run(this.#tell());
    }
    await Promise.all(this.#running);
    await this.#listening?.end().catch(() => undefined);
  }

  /** Never rejects. */
  #run(task: Promise<void>): Promise<void> {
    const run = task
      .catch((error: unknown) => {
        this.#options.logger.debug({ err: error }, 'notifications of commits are late');
      })
      .finally(() => this.#running.delete(run));
    this.#running.add(run);
    return run;
  }

  async #tell(): Promise<void> {
    this.#telling = undefined;
    const all = [...this.#untold];
    this.#untold.clear();
    for (let at = 0; at < all.length; at += PROJECTS_TOLD_AT_ONCE) {
      const some = all.slice(at, at + PROJECTS_TOLD_AT_ONCE);
      await this.#options.database.query(TELL, [
        some.map(([project, seq]) => `${project} ${seq}`).join('\n'),
      ]);
    }
  }

  #lookLater(): void {
    if (this.#looking !== undefined || this.#closed || this.#watchers.size === 0) return;
    const { lookEveryMs, lookAloneEveryMs } = this.#timing;
    const look = () => {
      void this.#run(
        this.#look().finally(() => {
          this.#looking = undefined;
          this.#lookLater();
        }),
      );
    };
    this.#looking = setTimeout(look, this.#isListening ? lookEveryMs : lookAloneEveryMs);
  }

  async #look(): Promise<void> {
    const rows = await this.#options.database.query(LOOK, [[...this.#watchers.keys()]]);
    for (const [project, seq] of rows as unknown as [string, number][]) this.#heard(project, seq);
  }

  #heard(project: string, position: Position): void {
    for (const onCommit of [...(this.#watchers.get(project) ?? [])]) onCommit(position);
  }

  /** Listens until the connection breaks, and again after a pause. */
  async #listen(): Promise<void> {
    const { connection } = this.#options;
    if (connection.isPooled || this.#closed) return;
    const client = new pg.Client(configOf(connection));
    this.#listening = client;
    const ended = (error?: unknown) => {
      if (this.#listening !== client) return;
      this.#listening = undefined;
      this.#isListening = false;
      // What ends it twice, an error and then the end, must not end it again.
      client.end().catch(() => undefined);
      if (this.#closed) return;
      this.#options.logger.debug({ err: error }, 'the connection that listens for commits broke');
      this.#listenAgain = setTimeout(() => void this.#run(this.#listen()), LISTEN_AGAIN_MS);
    };
    client.on('error', ended);
    client.on('end', ended);
    client.on('notification', ({ payload = '' }) => {
      for (const line of payload.split('\n')) {
        const [project = '', seq] = line.split(' ');
        this.#heard(project, Number(seq));
      }
    });
    try {
      await client.connect();
      await client.query(`LISTEN ${CHANNEL}`);
      this.#isListening = true;
    } catch (error) {
      ended(error);
    }
  }
}
