import { createHash } from 'node:crypto';

/**
 * Identifies a project's definitions and indexes: the same text for the same revisions.
 *
 * @param indexVersion the version of the project's indexes, where the engine counts them.
 * @param digest SHA-256 of the revisions of all definitions, in the order of their bytes, in hex.
 */
export function definitionsState(indexVersion: number, digest: string): string {
  return `${indexVersion} ${digest}`;
}

/** @param revs in hex. */
export function digestOfRevs(revs: readonly string[]): string {
  const hash = createHash('sha256');
  for (const rev of revs.toSorted()) hash.update(rev, 'hex');
  return hash.digest('hex');
}

export const NO_DEFINITIONS = digestOfRevs([]);
