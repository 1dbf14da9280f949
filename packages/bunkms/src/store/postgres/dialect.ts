import type { Dialect } from '../sql/dialect.ts';
import { row } from '../sql/statement.ts';
import { AUDIT } from './pools.ts';

/** How long a measured clock difference is used, milliseconds. */
const MEASURED_FOR_MS = 60_000;

/**
 * The PostgreSQL dialect. Orders by `-seq` match the indexes: for an order by `seq`, PostgreSQL might scan
 * the whole chain.
 */
export function postgresDialect(): Dialect {
  const clock = { aheadMs: 0, measuredAtMs: Number.NEGATIVE_INFINITY };
  return {
    auditTable: AUDIT,
    indexedBy: () => '',
    unindexed: (column) => column,
    contains: (column, text) => `strpos(${column}, ${text}) > 0`,
    detailMember: (name, table) => `substring(${table}.detail from '"${name}":"([^"]*)"')`,
    storageOfDetail: `(detail::jsonb ->> 'storage')`,
    isSameRecord: `action = $1 AND key IS NULL AND detail IS NOT NULL
      AND hashtextextended(detail, 0) = hashtextextended($2, 0) AND detail = $2`,
    newerThan: (seq, than) => `(-${seq}) < -(${than})::bigint`,
    olderThan: (seq, than) => `(-${seq}) > -(${than})::bigint`,
    newestFirst: (seq) => `(-${seq})`,
    oldestFirst: (seq) => `(-${seq}) DESC`,
    leftJoinAudit: (select) => `LEFT JOIN LATERAL (${select('*')}) AS a ON true`,
    forEach(types, select) {
      const arrays = types.map((type, at) => `$${at + 1}::${type}[]`).join(', ');
      const names = types.map((_, at) => `p${at + 1}`);
      return {
        sql: `SELECT a.*, n.place FROM unnest(${arrays}) WITH ORDINALITY AS n (${names.join(', ')}, place)
          CROSS JOIN LATERAL (${select(...names.map((name) => `n.${name}`))}) AS a`,
      };
    },
    insertEach: (table, columns, rest) => ({
      sql: `INSERT INTO ${table} (${columns.map(([name]) => name).join(', ')})
        SELECT * FROM unnest(${columns.map(([, type], at) => `$${at + 1}::${type}[]`).join(', ')}) ${rest}`,
    }),
    returningReplaced: 'RETURNING xmax <> 0 AS replaced',
    noteRemoval: 'UPDATE scrubs SET wanted = wanted + 1, xid = pg_current_xact_id()',
    untilColumn: 'until_ms',
    /**
     * Uses the clock of the database, because the clocks of callers may differ by more than the length of a
     * claim. Times of a caller are translated by the difference between the two clocks.
     */
    *clockTranslation(now) {
      if (performance.now() - clock.measuredAtMs > MEASURED_FOR_MS) {
        const found = yield* row('SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now');
        clock.aheadMs = Date.parse(now) - (found?.['now'] as number);
        clock.measuredAtMs = performance.now();
      }
      const { aheadMs } = clock;
      return (time) => Date.parse(time) - aheadMs;
    },
  };
}
