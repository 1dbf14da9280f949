import type { Dialect } from '../sql/dialect.ts';

/** The SQLite dialect. Without `INDEXED BY`, SQLite might scan a table. */
export const SQLITE: Dialect = {
  auditTable: 'audit',
  indexedBy: (index) => `INDEXED BY ${index}`,
  // The sign makes it an expression without an index.
  unindexed: (column) => `+${column}`,
  contains: (column, text) => `instr(${column}, ${text}) > 0`,
  // A detail that somebody changed to invalid JSON must not make the walk fail that finds it.
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
  // `secure_delete` overwrites removed data; `scrub` truncates the log.
  noteRemoval: undefined,
  untilColumn: 'until',
  // All processes with this file open share the clock of this machine.
  *clockTranslation() {
    return (time) => time;
  },
};
