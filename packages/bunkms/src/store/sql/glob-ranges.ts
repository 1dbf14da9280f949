/** Names that begin with `from`, or the one name that it is. */
export interface GlobRange {
  readonly from: string;
  readonly isPrefix: boolean;
}

/** The ranges in which the names lie that globs match, in order and apart from each other. */
export function globRanges(globs: readonly string[]): GlobRange[] {
  const starred = globs.filter((glob) => glob.includes('*'));
  const prefixes = [...new Set(starred.map((glob) => glob.slice(0, glob.indexOf('*'))))];
  const isCovered = (name: string) =>
    prefixes.some((prefix) => prefix !== name && name.startsWith(prefix)) || prefixes.includes('');
  const names = new Set(globs.filter((glob) => !glob.includes('*') && !prefixes.includes(glob)));
  return [
    ...prefixes
      .filter((prefix) => prefix === '' || !isCovered(prefix))
      .map((from) => ({ from, isPrefix: true })),
    ...[...names].filter((name) => !isCovered(name)).map((from) => ({ from, isPrefix: false })),
  ].sort((one, other) => (one.from < other.from ? -1 : 1));
}
