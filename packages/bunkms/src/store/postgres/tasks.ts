import type { Presence, TaskClaim } from '../port.ts';
import type { Session } from './session.ts';

/** How long a difference between two clocks is believed, milliseconds of this process's steady clock. */
const MEASURED_FOR_MS = 60_000;

/**
 * Which node does what, and which are up, by the clock of the database: the callers' clocks may differ by
 * more than a claim lasts. What a caller says is translated by the difference between its clock and that one.
 */
export class Tasks {
  #aheadMs = 0;
  #measuredAtMs = Number.NEGATIVE_INFINITY;

  /** Inside a write. @returns false when another holder has the task. */
  async claim(session: Session, { task, holder, now, until }: TaskClaim): Promise<boolean> {
    const translate = await this.#translation(session, now);
    const changed = await session.run(
      `INSERT INTO claims AS c (task, holder, until_ms) VALUES ($1, $2, $4)
         ON CONFLICT (task) DO UPDATE SET holder = $2, until_ms = $4
         WHERE c.holder = $2 OR c.until_ms <= $3 OR c.until_ms > $4`,
      task,
      holder,
      translate(now),
      translate(until),
    );
    return changed === 1;
  }

  /** Inside a write. */
  async release(session: Session, { task, holder }: Pick<TaskClaim, 'task' | 'holder'>): Promise<void> {
    await session.run('DELETE FROM claims WHERE task = $1 AND holder = $2', task, holder);
  }

  /** Inside a write. Forgets those that did not say for long that they are up. */
  async announce(session: Session, { service, kekIds, now, until }: Presence): Promise<void> {
    const translate = await this.#translation(session, now);
    await session.run('DELETE FROM presences WHERE until_ms <= $1', translate(now));
    await session.run(
      `INSERT INTO presences (service, kek_ids, until_ms) VALUES ($1, $2, $3)
         ON CONFLICT (service) DO UPDATE SET kek_ids = $2, until_ms = $3`,
      service,
      kekIds.join(','),
      translate(until),
    );
  }

  /** Inside a write. */
  async withdraw(session: Session, service: string): Promise<void> {
    await session.run('DELETE FROM presences WHERE service = $1', service);
  }

  async isHeldByAll(session: Session, { kekId, now }: { kekId: string; now: string }): Promise<boolean> {
    const translate = await this.#translation(session, now);
    const row = await session.row(
      `SELECT 1 FROM presences WHERE until_ms > $1 AND NOT $2 = ANY(string_to_array(kek_ids, ',')) LIMIT 1`,
      translate(now),
      kekId,
    );
    return row === undefined;
  }

  async #translation(session: Session, now: string): Promise<(time: string) => number> {
    if (performance.now() - this.#measuredAtMs > MEASURED_FOR_MS) {
      const row = await session.row(
        'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now',
      );
      this.#aheadMs = Date.parse(now) - (row?.['now'] as number);
      this.#measuredAtMs = performance.now();
    }
    const aheadMs = this.#aheadMs;
    return (time) => Date.parse(time) - aheadMs;
  }
}
