import { AppError } from '@bundoc/shared/contract/app-error';
import type { Position } from '../../port/port.ts';
import type { Database, Statement } from '../database/database.ts';

/** Heads that one transaction moves. */
const AT_ONCE = 1_000;
/** Maximum of searches for remaining heads. Each finds heads that a fence has moved since the last one. */
const LOOKS_MAX = 8;
/** Fenced projects too: a move may end with the project here. */
const TABLES = ['heads', 'fenced_heads'] as const;

const MOVE = 'seq = $1, purged_seq = $1';

/** Skips heads that other transactions hold, so that no project waits for a commit of another. */
const SKIP_FREE = TABLES.map(
  (table): Statement => ({
    name: `bundoc-skip-free-${table}-2`,
    text: `
WITH free AS (
  SELECT project FROM bundoc.${table} WHERE project > $2 AND seq < $1 ORDER BY project LIMIT ${AT_ONCE} FOR UPDATE SKIP LOCKED
), moved AS (UPDATE bundoc.${table} AS h SET ${MOVE} FROM free WHERE h.project = free.project RETURNING h.project)
SELECT max(project), count(*) FROM moved`,
  }),
);
const SKIP_ONE = TABLES.map(
  (table): Statement => ({
    name: `bundoc-skip-one-${table}-2`,
    text: `UPDATE bundoc.${table} SET ${MOVE} WHERE project = $2 AND seq < $1`,
  }),
);
/** One snapshot of both tables, because a fence moves a head from one to the other. */
const LEFT: Statement = {
  name: 'bundoc-skip-left-1',
  text: `SELECT project FROM bundoc.heads WHERE seq < $1 UNION ALL SELECT project FROM bundoc.fenced_heads WHERE seq < $1 LIMIT ${AT_ONCE}`,
};

/**
 * Lets all projects continue after this position, durably, and their followers restart. May be repeated. Each
 * node reads the position of a project under the lock of its head, so none continues from an earlier one.
 *
 * @throws AppError `storage_unavailable` when heads stay, because someone undoes it or there are too many;
 *   those of the database, for example when a transaction holds a head for longer than a statement may take.
 *   Then some projects may continue from there already.
 */
export async function skipPositions(database: Pick<Database, 'query'>, to: Position): Promise<void> {
  for (const statement of SKIP_FREE)
    for (let after: unknown = '', moved = AT_ONCE; moved === AT_ONCE; ) {
      const [row] = await database.query(statement, [to, after]);
      [after, moved] = row as unknown as [string, number];
    }
  for (let look = 0; look < LOOKS_MAX; look++) {
    const left = await database.query(LEFT, [to]);
    if (left.length === 0) return;
    for (const [project] of left)
      for (const statement of SKIP_ONE) await database.query(statement, [to, project]);
  }
  throw new AppError('storage_unavailable', {
    cause: new Error('heads stay at positions from before a take-over'),
  });
}
