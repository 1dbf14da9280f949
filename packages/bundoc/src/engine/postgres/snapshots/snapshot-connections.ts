import { Accounts } from '@bundoc/shared/admission/account';
import { Pool } from '@bundoc/shared/admission/pool';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { shareIn } from '@bundoc/shared/shares/share-key';
import { snapshotTooOld } from '../../port/snapshot-port.ts';
import type { BoundStatement, Database, Row } from '../database/database.ts';
import { HeldTransaction } from '../database/held-transaction.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';

/**
 * The longest time that a snapshot is held, milliseconds. Until its end, the server cannot remove rows that
 * were superseded meanwhile, of any project.
 */
const HELD_MS_MAX = 30_000;
/** Later, the server ends it by itself: its node has died. */
const IDLE_MS_MAX = HELD_MS_MAX + 5_000;

/** One of this many connections may hold a snapshot. */
const CONNECTIONS_FOR_ONE = 5;
/** As many again are for subjects that hold at most their equal part, unless there are fewer than five. */
const BEYOND = { ofSubject: 2, ofProject: 1 };

const SHOW_ONE_STATE: BoundStatement = {
  statement: {
    name: 'bundoc-show-one-state',
    text: 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY',
  },
  values: [],
};

const IDLE_LIMIT: BoundStatement = {
  statement: {
    name: 'bundoc-snapshot-idle-limit',
    text: "SELECT set_config('idle_in_transaction_session_timeout', $1, true)",
  },
  values: [String(IDLE_MS_MAX)],
};

/** An account is charged for the time that it holds a connection. */
const US_OF_MS = 1_000;

export interface SnapshotConnectionsOptions {
  readonly database: Pick<Database, 'query' | 'run' | 'transaction' | 'connectionsMax'>;
  readonly clock: Clock;
  readonly heldMsMax?: number;
}

/**
 * The connections of a node that hold snapshots, a bounded part of all. The next one goes to the subject that
 * has held them for the shortest time.
 */
export class SnapshotConnections {
  readonly #options: Required<SnapshotConnectionsOptions>;
  readonly #accounts = new Accounts();
  readonly #places: Pool;

  constructor(options: SnapshotConnectionsOptions) {
    this.#options = { heldMsMax: HELD_MS_MAX, ...options };
    const { database, clock } = options;
    this.#places = new Pool({
      name: 'connections for scans',
      capacity: Math.max(1, Math.floor(database.connectionsMax / CONNECTIONS_FOR_ONE)),
      ...(database.connectionsMax >= CONNECTIONS_FOR_ONE && { beyond: BEYOND }),
      accounts: this.#accounts,
      isOwed: true,
      clock,
    });
  }

  /** Number of connections that hold a snapshot. */
  get held(): number {
    return this.#places.held;
  }

  /** Number of answers that wait for one. */
  get waiting(): number {
    return this.#places.waiting;
  }

  /**
   * Waits for a connection, and begins a snapshot of the whole database on it. The snapshot ends by itself
   * after a while, and then throws `snapshot_too_old`.
   *
   * @param first the first statement.
   * @param signal ends the wait at once, with its reason.
   * @returns the transaction, with the rows of the first statement.
   * @throws AppError `rate_limited`, `overloaded`; those of the database.
   */
  async begin(
    project: string,
    first: BoundStatement,
    signal?: AbortSignal,
  ): Promise<{ readonly held: HeldTransaction; readonly rows: readonly Row[] }> {
    const { database, clock, heldMsMax } = this.#options;
    const place = await this.#places.take(shareIn(project), 1, signal);
    const sinceMs = clock.monotonic();
    const free = () => {
      this.#accounts.charge(place.account, US_OF_MS * (clock.monotonic() - sinceMs));
      place[Symbol.dispose]();
    };
    const begin = () => HeldTransaction.begin(database, [SHOW_ONE_STATE, IDLE_LIMIT, first]);
    try {
      const { held, rows } = await retryUnavailable(clock, begin);
      const timer = setTimeout(() => held.end(snapshotTooOld()), heldMsMax).unref();
      void held.freed.then(() => {
        clearTimeout(timer);
        free();
      });
      return { held, rows: rows.at(-1) ?? [] };
    } catch (error) {
      free();
      throw error;
    }
  }
}
