import type { Logger } from '@bundoc/shared/runtime/logger';
import pg from 'pg';
import type { Position } from '../port.ts';
import { configOf, type Database, type DatabaseOptions, type Statement } from './database/database.ts';

/** The interface for stores. */
export interface CommitChannel {
  /**
   * Calls `onCommit` with the position of the project's latest commit, periodically and soon after a commit
   * by any node.
   */
  watch(project: string, onCommit: (position: Position) => void): void;
  unwatch(project: string, onCommit: (position: Position) => void): void;
  /** Notifies all nodes of a commit by this one. */
  committed(project: string, position: Position): void;
}

export interface CommitNotificationsOptions {
  readonly database: Database;
  /** For the listening connection, which cannot go through a pooler. */
  readonly connection: DatabaseOptions;
  readonly logger: Logger;
  readonly timing?: CommitNotificationsTiming;
}

export interface CommitNotificationsTiming {
  /** Interval between notifications: one in each transaction would halve the throughput. */
  readonly notifyEveryMs: number;
  /** Interval of polling, because notifications are lost with their connection. */
  readonly pollEveryMs: number;
  /** Interval of polling without a listening connection. */
  readonly pollAloneEveryMs: number;
}

const TIMING: CommitNotificationsTiming = { notifyEveryMs: 25, pollEveryMs: 1_000, pollAloneEveryMs: 250 };
const CHANNEL = 'bundoc_commits';
/** A notification has at most 8,000 bytes, and one project takes up to 63 + 1 + 16 + 1. */
const PROJECTS_OF_NOTIFICATION_MAX = 90;
const RECONNECT_MS = 1_000;

const NOTIFY: Statement = { name: 'bundoc-notify-1', text: `SELECT pg_notify('${CHANNEL}', $1)::text` };
const POLL: Statement = {
  name: 'bundoc-poll-1',
  text: 'SELECT project, seq FROM bundoc.heads WHERE project = ANY ($1::text[])',
};

/**
 * Exchanges commit positions between the nodes of a database. It uses NOTIFY, a few times a second at any
 * write rate, and polls the projects with waiters. Notifications may be late, duplicated or, during an
 * outage, lost; the rows are the source of truth.
 *
 * One class, because telling, looking and listening serve the same watchers.
 */
export class CommitNotifications implements CommitChannel, AsyncDisposable {
  readonly #options: CommitNotificationsOptions;
  readonly #timing: CommitNotificationsTiming;
  readonly #watchers = new Map<string, Set<(position: Position) => void>>();
  readonly #unsent = new Map<string, Position>();
  #notifyTimer: NodeJS.Timeout | undefined;
  #pollTimer: NodeJS.Timeout | undefined;
  #listening: pg.Client | undefined;
  #reconnectTimer: NodeJS.Timeout | undefined;
  #isListening = false;
  #closed = false;
  /** Resolves once it listens, or the first attempt has failed. */
  readonly ready: Promise<void>;
  /** Running tasks. */
  readonly #running = new Set<Promise<unknown>>();

  constructor(options: CommitNotificationsOptions) {
    this.#options = options;
    this.#timing = options.timing ?? TIMING;
    this.ready = this.#run(this.#listen());
  }

  watch(project: string, onCommit: (position: Position) => void): void {
    const watchers = this.#watchers.get(project) ?? new Set();
    this.#watchers.set(project, watchers.add(onCommit));
    this.#schedulePoll();
  }

  unwatch(project: string, onCommit: (position: Position) => void): void {
    const watchers = this.#watchers.get(project);
    watchers?.delete(onCommit);
    if (watchers?.size === 0) this.#watchers.delete(project);
  }

  committed(project: string, position: Position): void {
    this.#unsent.set(project, position);
    if (this.#notifyTimer === undefined && !this.#closed)
      this.#notifyTimer = setTimeout(() => void this.#run(this.#notify()), this.#timing.notifyEveryMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#pollTimer);
    clearTimeout(this.#reconnectTimer);
    if (this.#notifyTimer !== undefined) {
      clearTimeout(this.#notifyTimer);
      void this.#run(this.#notify());
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

  async #notify(): Promise<void> {
    this.#notifyTimer = undefined;
    const all = [...this.#unsent];
    this.#unsent.clear();
    for (let at = 0; at < all.length; at += PROJECTS_OF_NOTIFICATION_MAX) {
      const some = all.slice(at, at + PROJECTS_OF_NOTIFICATION_MAX);
      await this.#options.database.query(NOTIFY, [
        some.map(([project, seq]) => `${project} ${seq}`).join('\n'),
      ]);
    }
  }

  #schedulePoll(): void {
    if (this.#pollTimer !== undefined || this.#closed || this.#watchers.size === 0) return;
    const { pollEveryMs, pollAloneEveryMs } = this.#timing;
    const poll = () => {
      void this.#run(
        this.#poll().finally(() => {
          this.#pollTimer = undefined;
          this.#schedulePoll();
        }),
      );
    };
    this.#pollTimer = setTimeout(poll, this.#isListening ? pollEveryMs : pollAloneEveryMs);
  }

  async #poll(): Promise<void> {
    const rows = await this.#options.database.query(POLL, [[...this.#watchers.keys()]]);
    for (const [project, seq] of rows as unknown as [string, number][]) this.#deliver(project, seq);
  }

  #deliver(project: string, position: Position): void {
    for (const onCommit of [...(this.#watchers.get(project) ?? [])]) onCommit(position);
  }

  /** Listens until the connection breaks, then reconnects after a pause. */
  async #listen(): Promise<void> {
    const { connection } = this.#options;
    if (connection.isPooled || this.#closed) return;
    const client = new pg.Client(configOf(connection));
    this.#listening = client;
    const ended = (error?: unknown) => {
      if (this.#listening !== client) return;
      this.#listening = undefined;
      this.#isListening = false;
      // Both an error and the end may arrive; the second one must not throw.
      client.end().catch(() => undefined);
      if (this.#closed) return;
      this.#options.logger.debug({ err: error }, 'the connection that listens for commits broke');
      this.#reconnectTimer = setTimeout(() => void this.#run(this.#listen()), RECONNECT_MS);
    };
    client.on('error', ended);
    client.on('end', ended);
    client.on('notification', ({ payload = '' }) => {
      for (const line of payload.split('\n')) {
        const [project = '', seq] = line.split(' ');
        this.#deliver(project, Number(seq));
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
