import type { Database, Row, Transaction } from '../../src/engine/postgres/database/database.ts';

/** A statement that a node has run. */
export interface Ran {
  readonly name: string;
  readonly values: readonly unknown[];
  readonly rows: readonly Row[];
}

/** Tells of each named statement of a database, in transactions and outside. */
export function watchedDatabase(database: Database, ran: (statement: Ran) => void): Database {
  const watched = (of: Transaction['query']): Transaction['query'] => {
    return async (statement, values) => {
      const rows = await of(statement, values);
      ran({ name: statement.name, values, rows });
      return rows;
    };
  };
  return Object.create(database, {
    query: { value: watched(database.query.bind(database)) },
    run: { value: database.run.bind(database) },
    connectionsMax: { value: database.connectionsMax },
    transaction: {
      value: ((begin, action) =>
        database.transaction(begin, (transaction, begun) =>
          action({ ...transaction, query: watched(transaction.query) }, begun),
        )) satisfies Database['transaction'],
    },
  });
}

/** What nodes have done with ordered indexes. */
export class OrderUse {
  /** Runs that replaced others, pages that answers read, and places at which they found no document. */
  swaps = 0;
  pages = 0;
  gone = 0;
  resets = 0;
  /** Statements that read what an answer needs. */
  reads = 0;

  readonly add = ({ name, values, rows }: Ran): void => {
    if (name.startsWith('bundoc-swap-runs')) this.swaps += rows.length;
    if (name.startsWith('bundoc-reset-runs')) this.resets += rows.length;
    if (!name.startsWith('bundoc-read-ordered')) return;
    this.reads++;
    const ofKind = (kind: number) => rows.filter((row) => row[5] === kind).length;
    this.pages += ofKind(3);
    this.gone += (values[6] as unknown[]).length - ofKind(2);
  };
}
