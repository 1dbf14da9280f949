/** A file for recovery is truncated, changed, or of an unknown format. */
export class DamagedFile extends Error {
  override readonly name = 'DamagedFile';
}

/** A file or installation needs a KEK that the ring lacks. */
export class MissingKek extends Error {
  override readonly name = 'MissingKek';
  constructor(what: string, kekId: string) {
    super(`${what} was made under the KEK ${kekId}, which the ring lacks`);
  }
}

/** Something would come back that may have been destroyed, disabled or revoked since. */
export class ResurrectionNotAccepted extends Error {
  override readonly name = 'ResurrectionNotAccepted';
}

const LISTED_MAX = 10;

/** The first few names and the number of further ones, for a message. */
export function listOf(names: readonly string[]): string {
  const more = names.length - LISTED_MAX;
  return more > 0 ? `${names.slice(0, LISTED_MAX).join(', ')} and ${more} more` : names.join(', ');
}
