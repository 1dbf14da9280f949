import type { Sql } from '../sql/statement.ts';
import type { Connection } from './connection.ts';

/** Tokens that are remembered; with more, all are looked up again. */
const KNOWN_MAX = 5_000;

/**
 * Families of active tokens, each authenticated by the record of its issue. What was found is remembered
 * until something could change it: a commit of any other connection, whatever it wrote, or what this
 * connection writes of tokens ({@link forget}).
 */
export class ActiveFamilies {
  readonly #connection: Pick<Connection, 'dataVersion'>;
  readonly #find: (jtis: readonly string[]) => Sql<ReadonlyMap<string, string>>;
  readonly #known = new Map<string, string>();
  /** The state of the database that {@link #known} was found in. */
  #dataVersion: number | undefined;

  /** @param find looks the families of active tokens up. */
  constructor(
    connection: Pick<Connection, 'dataVersion'>,
    find: (jtis: readonly string[]) => Sql<ReadonlyMap<string, string>>,
  ) {
    this.#connection = connection;
    this.#find = find;
  }

  /** @returns the families of those tokens that are active. That one is not is not remembered. */
  *of(jtis: readonly string[]): Sql<ReadonlyMap<string, string>> {
    if (jtis.length === 0) return new Map();
    // Asked before the look-up: a commit between the two then shows with the next call.
    const dataVersion = this.#connection.dataVersion();
    if (dataVersion !== this.#dataVersion) this.forget();
    this.#dataVersion = dataVersion;
    const found = new Map<string, string>();
    for (const jti of jtis) {
      const known = this.#known.get(jti);
      const family = known ?? (yield* this.#find([jti])).get(jti);
      if (family === undefined) continue;
      found.set(jti, family);
      if (known !== undefined) continue;
      if (this.#known.size >= KNOWN_MAX) this.forget();
      this.#known.set(jti, family);
    }
    return found;
  }

  /** To be called when this connection has revoked or removed tokens, or taken back what it wrote. */
  forget(): void {
    this.#known.clear();
  }
}
