/**
 * A file that is to bring something back is not as it was made: cut short, changed, or of an unknown format.
 */
export class FileDamaged extends Error {
  override readonly name = 'FileDamaged';
}

/** What is to be opened was made under a KEK that the ring lacks. */
export class KekLacking extends Error {
  override readonly name = 'KekLacking';
  constructor(what: string, kekId: string) {
    super(`${what} was made under the KEK ${kekId}, which the ring lacks`);
  }
}

/**
 * Something would be brought back of which it is not known whether it was destroyed, disabled or revoked
 * since.
 */
export class ResurrectionNotAccepted extends Error {
  override readonly name = 'ResurrectionNotAccepted';
}

const LISTED_MAX = 10;

/** For a message: the first few, and how many more. */
export function listOf(names: readonly string[]): string {
  const more = names.length - LISTED_MAX;
  return more > 0 ? `${names.slice(0, LISTED_MAX).join(', ')} and ${more} more` : names.join(', ');
}
