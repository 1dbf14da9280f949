import { familyOfIssue } from '../../records/token-record.ts';
import type { AuditTable } from './audit-table.ts';
import type { Connection } from './connection.ts';
import { issueOfLive } from './token-table.ts';

/** Tokens that are remembered; with more, all are looked up again. */
const KNOWN_MAX = 5_000;

/**
 * Families of live tokens, each authenticated by the record of its issue. What was found is remembered until something could
 * change it: a commit of any other connection, whatever it wrote, or what this connection writes of tokens ({@link forget}).
 */
export class LiveFamilies {
  readonly #connection: Connection;
  readonly #audit: AuditTable;
  readonly #known = new Map<string, string>();
  /** The state of the database that {@link #known} was found in. */
  #dataVersion: number | undefined;

  constructor(connection: Connection, audit: AuditTable) {
    this.#connection = connection;
    this.#audit = audit;
  }

  /** @returns undefined when the token is not live, or its record is not genuine; that is not remembered. */
  familyOf(jti: string): string | undefined {
    // Asked before the look-up: a commit between the two then shows with the next call.
    const dataVersion = this.#connection.dataVersion();
    if (dataVersion !== this.#dataVersion) this.forget();
    this.#dataVersion = dataVersion;
    const known = this.#known.get(jti);
    if (known !== undefined) return known;
    const issued = issueOfLive(this.#connection, jti);
    const family = issued && familyOfIssue(this.#audit.chainKey, jti, issued);
    if (family === undefined) return undefined;
    if (this.#known.size >= KNOWN_MAX) this.forget();
    this.#known.set(jti, family);
    return family;
  }

  /** To be called when this connection has written of tokens, or taken back what it wrote. */
  forget(): void {
    this.#known.clear();
  }
}
