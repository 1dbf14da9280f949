import type { Dialect } from '../sql/dialect.ts';

/** What SQLite says in its own way. Without `INDEXED BY` it may rather walk a table. */
export const SQLITE: Dialect = {
  indexedBy: (index) => `INDEXED BY ${index}`,
  // With the sign no index is one of this expression.
  unindexed: (column) => `+${column}`,
  contains: (column, text) => `instr(${column}, ${text}) > 0`,
  // A detail that somebody changed to no JSON must not stand in the way of the walk that finds it.
  detailMember: (name, table) =>
    `(CASE WHEN json_valid(${table}.detail) THEN json_extract(${table}.detail, '$.${name}') END)`,
  storageOfDetail: `detail ->> '$.storage'`,
  isSameRecord: 'action = $1 AND detail IS $2',
  newerThan: (seq, than) => `${seq} > ${than}`,
  olderThan: (seq, than) => `${seq} < ${than}`,
  newestFirst: (seq) => `${seq} DESC`,
  oldestFirst: (seq) => seq,
  leftJoinAudit: (select) => `LEFT JOIN audit AS a ON a.seq = (${select('seq')})`,
  forEach: (types, select) => ({ sql: select(...types.map((_, at) => `$${at + 1}`)) }),
  insertEach: (table, columns, rest) => ({
    sql: `INSERT INTO ${table} (${columns.map(([name]) => name).join(', ')})
      VALUES (${columns.map((_, at) => `$${at + 1}`).join(', ')}) ${rest}`,
  }),
  returningReplaced: '',
  // `secure_delete` overwrites what is taken out; `scrub` takes care of the log.
  noteRemoval: undefined,
  untilColumn: 'until',
  // All processes that have the file open run on this machine, by its clock.
  *clockTranslation() {
    return (time) => time;
  },
};
