import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { ChainHead } from '../records/chain.ts';

/** Maximum of records that {@link TrustStore.brokenLink} compares at once, because other calls wait. */
export const LINKS_MAX = 10_000;

/**
 * The chain or the database contradicts what this process knows. A write that meets it is rolled back. The
 * message is for the operator.
 */
export class Untrusted extends Error {
  override readonly name = 'Untrusted';
}

/**
 * Lets a process detect changes of the database by somebody else, if the server's program and its extensions
 * are honest. Errors of every method: see `KmsStore`.
 */
export interface TrustStore {
  /** The records with these numbers, in any order. Not authenticated. */
  recordsAt(seqs: readonly number[]): Promise<readonly AuditRecord[]>;

  /**
   * The first record after `after`, up to `upTo`, that does not name the hash of the record before it, or
   * whose predecessor is missing; undefined when there is none. The database compares them itself.
   *
   * @param after at least 0. @param upTo at most {@link LINKS_MAX} later.
   */
  brokenLink(after: number, upTo: number): Promise<number | undefined>;

  /** The latest record with the action `chain.restored`, found by an index. Not authenticated. */
  latestRestore(): Promise<AuditRecord | undefined>;

  /**
   * Compares the schema with the one that this release makes. Statistics, grants, publications and plain
   * indexes of operators are ignored.
   *
   * @returns a text for each difference, as in "trigger drop_audit on audit", in order.
   */
  foreignObjects(): Promise<readonly string[]>;

  /**
   * From now on, each write of this process requires that record in the chain, until it has written a later
   * one. Without effect while it requires a later one already: a write may end before a check that began
   * earlier.
   *
   * @param head undefined to require none.
   */
  expectHead(head: ChainHead | undefined): Promise<void>;
}
