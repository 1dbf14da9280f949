/** A file for recovery is truncated, changed, or of an unknown format. */
export class DamagedFile extends Error {
  override readonly name = 'DamagedFile';
}

/** A share of the KEKs is damaged, mistyped or changed. */
export class DamagedShare extends DamagedFile {}

/** Shares of the KEKs that do not belong together, or too few of them. */
export class UnfitShares extends Error {
  override readonly name = 'UnfitShares';
}

/** A file or installation needs a KEK that the ring lacks. */
export class MissingKek extends Error {
  override readonly name = 'MissingKek';
  constructor(what: string, kekId: string) {
    super(`${what} was made under the KEK ${kekId}, which the ring lacks`);
  }
}

/** A copy of the audit chain ends before something that happened. */
export class EvidenceTooOld extends Error {
  override readonly name = 'EvidenceTooOld';
}

const LISTED_MAX = 10;

/**
 * The first few names and the number of further ones, for a message.
 *
 * @param count how many there are, if `names` are only the first of them.
 */
export function listOf(names: readonly string[], count = names.length): string {
  const shown = names.slice(0, LISTED_MAX);
  const more = count - shown.length;
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
}
