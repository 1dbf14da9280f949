import type { BoundStatement, Connections, Queryable, Row, Statement, Transaction } from './database.ts';
import { storageErrorOf } from './database-error.ts';

/** A transaction that stays open between calls, and holds a connection until its end. It is rolled back. */
export class HeldTransaction implements Queryable {
  /** Resolves once the connection is free. */
  readonly freed: Promise<void>;
  readonly #transaction: Transaction;
  readonly #ended: PromiseWithResolvers<undefined>;
  #reason: unknown;

  private constructor(
    transaction: Transaction,
    ended: PromiseWithResolvers<undefined>,
    freed: Promise<void>,
  ) {
    this.#transaction = transaction;
    this.#ended = ended;
    this.freed = freed;
  }

  /**
   * @param begin the first statements, sent with BEGIN.
   * @returns it, with their rows.
   */
  static async begin(database: Connections, begin: readonly BoundStatement[]): Promise<Begun> {
    const begun = Promise.withResolvers<Begun>();
    const ended = Promise.withResolvers<undefined>();
    const freed = database
      .transaction(begin, (transaction, rows) => {
        begun.resolve({ held: new HeldTransaction(transaction, ended, freed), rows });
        return ended.promise;
      })
      // Once it has begun, the failed statement has reported the error.
      .then(() => undefined, begun.reject);
    return await begun.promise;
  }

  /** After an error, it has ended. */
  async query(statement: Statement, values: readonly unknown[]): Promise<readonly Row[]> {
    if (this.#reason !== undefined) throw this.#reason;
    try {
      return await this.#transaction.query(statement, values);
    } catch (error) {
      this.#reason ??= storageErrorOf(error);
      this.#ended.reject(error);
      throw this.#reason;
    }
  }

  /** Ends it after the running statement. @param reason what later calls throw. */
  end(reason: Error): void {
    this.#reason ??= reason;
    this.#ended.resolve(undefined);
  }
}

interface Begun {
  readonly held: HeldTransaction;
  readonly rows: readonly (readonly Row[])[];
}
