import type { Position } from '../../port.ts';
import type { Database, Statement } from '../database/database.ts';

/** Fenced projects too: a move may end with the project here. */
const SKIP = ['heads', 'fenced_heads'].map(
  (table): Statement => ({
    name: `bundoc-skip-positions-${table}-1`,
    text: `UPDATE bundoc.${table} SET seq = $1, purged_seq = $1, index_seq = CASE WHEN index_seq = seq THEN $1 ELSE index_seq END
           WHERE seq < $1`,
  }),
);

/**
 * Lets all projects continue after this position, durably, and their followers restart. May be repeated. Each
 * node reads the position of a project under the lock of its head, so none continues from an earlier one.
 */
export async function skipPositions(database: Pick<Database, 'transaction'>, to: Position): Promise<void> {
  await database.transaction('', async (transaction) => {
    for (const statement of SKIP) await transaction.query(statement, [to]);
    return true;
  });
}
