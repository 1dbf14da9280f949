import type { Presence, TaskClaim } from '../cluster.ts';
import type { Dialect } from './dialect.ts';
import { row, run, type Sql } from './statement.ts';

/** The tables of task claims and of running services. */
export class ClusterTable {
  readonly #dialect: Dialect;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  /** Inside a write. @returns false when another holder has the task. */
  *claim({ task, holder, now, until }: TaskClaim): Sql<boolean> {
    const { untilColumn: column } = this.#dialect;
    const translate = yield* this.#dialect.clockTranslation(now);
    const changed = yield* run(
      `INSERT INTO claims AS c (task, holder, ${column}) VALUES ($1, $2, $4)
         ON CONFLICT (task) DO UPDATE SET holder = $2, ${column} = $4
         WHERE c.holder = $2 OR c.${column} <= $3 OR c.${column} > $4`,
      task,
      holder,
      translate(now),
      translate(until),
    );
    return changed === 1;
  }

  /** Inside a write. */
  *release({ task, holder }: Pick<TaskClaim, 'task' | 'holder'>): Sql<void> {
    yield* run('DELETE FROM claims WHERE task = $1 AND holder = $2', task, holder);
  }

  /** Inside a write. Removes services that have not announced themselves for long. */
  *announce({ service, kekIds, now, until }: Presence): Sql<void> {
    const { untilColumn: column } = this.#dialect;
    const translate = yield* this.#dialect.clockTranslation(now);
    yield* run(`DELETE FROM presences WHERE ${column} <= $1`, translate(now));
    yield* run(
      `INSERT INTO presences (service, kek_ids, ${column}) VALUES ($1, $2, $3)
         ON CONFLICT (service) DO UPDATE SET kek_ids = $2, ${column} = $3`,
      service,
      kekIds.join(','),
      translate(until),
    );
  }

  /** Inside a write. */
  *withdraw(service: string): Sql<void> {
    yield* run('DELETE FROM presences WHERE service = $1', service);
  }

  /**
   * Whether every running service holds the KEK. Ids of KEKs have the same length, so none is part of
   * another.
   */
  *isHeldByAll({ kekId, now }: { readonly kekId: string; readonly now: string }): Sql<boolean> {
    const { untilColumn, contains } = this.#dialect;
    const translate = yield* this.#dialect.clockTranslation(now);
    const lacking = yield* row(
      `SELECT 1 FROM presences WHERE ${untilColumn} > $1 AND NOT ${contains('kek_ids', '$2')} LIMIT 1`,
      translate(now),
      kekId,
    );
    return lacking === undefined;
  }
}
