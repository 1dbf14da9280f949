import type { Sql } from '../sql/statement.ts';
import type { Connection } from './connection.ts';

/** Maximum cached tokens. Beyond it the cache is cleared. */
const KNOWN_MAX = 5_000;

/**
 * A cache of the families of active tokens, each authenticated by the record of its issue. The cache is valid
 * until something could change it: any commit of another connection, or a change of tokens by this one
 * ({@link forget}).
 */
export class ActiveFamilies {
  readonly #connection: Pick<Connection, 'dataVersion'>;
  readonly #find: (jtis: readonly string[]) => Sql<ReadonlyMap<string, string>>;
  readonly #known = new Map<string, string>();
  /** The data version of the database for {@link #known}. */
  #dataVersion: number | undefined;

  /** @param find looks up the families of active tokens. */
  constructor(
    connection: Pick<Connection, 'dataVersion'>,
    find: (jtis: readonly string[]) => Sql<ReadonlyMap<string, string>>,
  ) {
    this.#connection = connection;
    this.#find = find;
  }

  /** @returns the families of those tokens that are active. Inactive tokens are not cached. */
  *of(jtis: readonly string[]): Sql<ReadonlyMap<string, string>> {
    if (jtis.length === 0) return new Map();
    // Read before the look-up, so that the next call detects a commit between the two.
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

  /** Call it when this connection has revoked or removed tokens, or rolled back a write. */
  forget(): void {
    this.#known.clear();
  }
}
