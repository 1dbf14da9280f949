const LISTED_MAX = 10;

/** For a message: the first few, and how many more. */
export function listOf(names: readonly string[]): string {
  const more = names.length - LISTED_MAX;
  return more > 0 ? `${names.slice(0, LISTED_MAX).join(', ')} and ${more} more` : names.join(', ');
}
