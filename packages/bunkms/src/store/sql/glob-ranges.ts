/** Names that begin with `from`, or exactly the name `from`. */
export interface GlobRange {
  readonly from: string;
  readonly isPrefix: boolean;
}

/** The ranges that contain the names that match globs, in order and disjoint. */
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
