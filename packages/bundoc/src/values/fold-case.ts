/**
 * The text without differences of case: each character in lower case, and that in upper case, by the rules of
 * Unicode for no language. So `ß` is `SS`, and all three forms of sigma are one. Unlike Unicode's own case
 * folding, which JavaScript lacks, `ı` is `I`, too.
 *
 * Both steps are necessary: `ẞ` has no other upper case, and `ς` depends on its place in lower case. The
 * result is that of each character by itself, in order, and none of them has fewer units than before.
 */
export function foldCase(text: string): string {
  return text.toLowerCase().toUpperCase();
}
