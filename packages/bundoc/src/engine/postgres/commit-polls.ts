import type { Logger } from '@bundoc/shared/logs/logger';
import type { Position } from '../port/port.ts';
import type { Database, Statement } from './database/database.ts';

/** The interface for stores. */
export interface CommitChannel {
  /** Calls `onCommit` with the position of the project's latest commit by any node, periodically. */
  watch(project: string, onCommit: (position: Position) => void): void;
  unwatch(project: string, onCommit: (position: Position) => void): void;
}

const POLL_EVERY_MS = 50;
/** Minimum pause after a poll, in relation to its duration, which grows with the number of projects. */
const PAUSE_TIMES = 2;

const POLL: Statement = {
  name: 'bundoc-poll-1',
  text: 'SELECT project, seq FROM bundoc.heads WHERE project = ANY ($1::text[])',
};

/** Polls for commits of other nodes, in all projects with waiters at once. */
export class CommitPolls implements CommitChannel, AsyncDisposable {
  readonly #database: Database;
  readonly #logger: Logger;
  readonly #watchers = new Map<string, Set<(position: Position) => void>>();
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | undefined;
  #closed = false;

  constructor(database: Database, logger: Logger) {
    this.#database = database;
    this.#logger = logger;
  }

  watch(project: string, onCommit: (position: Position) => void): void {
    const watchers = this.#watchers.get(project) ?? new Set();
    this.#watchers.set(project, watchers.add(onCommit));
    this.#schedule(POLL_EVERY_MS);
  }

  unwatch(project: string, onCommit: (position: Position) => void): void {
    const watchers = this.#watchers.get(project);
    watchers?.delete(onCommit);
    if (watchers?.size === 0) this.#watchers.delete(project);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#polling;
  }

  #schedule(afterMs: number): void {
    if (this.#timer !== undefined || this.#closed || this.#watchers.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#polling = this.#poll();
    }, afterMs);
  }

  /** Never rejects. */
  async #poll(): Promise<void> {
    const begun = performance.now();
    try {
      const rows = await this.#database.query(POLL, [[...this.#watchers.keys()]]);
      for (const [project, position] of rows as unknown as [string, Position][])
        for (const onCommit of [...(this.#watchers.get(project) ?? [])]) onCommit(position);
    } catch (error) {
      this.#logger.debug({ err: error }, 'changes by other nodes are late');
    }
    this.#timer = undefined;
    this.#schedule(Math.max(POLL_EVERY_MS, (performance.now() - begun) * PAUSE_TIMES));
  }
}
