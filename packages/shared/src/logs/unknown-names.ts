import { printable } from './printable.ts';

/** Maximum of unknown names that a refusal repeats. */
const NAMES_MAX = 5;
/** Maximum characters of a repeated name. Tokens and keys are longer in each of their spellings. */
const NAME_CHARS_MAX = 40;
/** Maximum distance of a name that is similar, and the characters for each unit of it. */
const DISTANCE_MAX = 3;
const CHARS_OF_DISTANCE = 3;

/**
 * Names unknown members of an input, and the known ones: `skip: unknown; known are where, limit`. A similar
 * known name is suggested. A client may send any name, so few are repeated, escaped, and no long ones.
 *
 * @param prefix of all names.
 */
export function describeUnknown(names: readonly string[], known: readonly string[], prefix = ''): string {
  const told = names.slice(0, NAMES_MAX).map((name) => suggestFor(name, known, prefix));
  const more = names.length - told.length;
  const unknown = more > 0 ? `${told.join(', ')} and ${more} more` : told.join(', ');
  return `${unknown}: unknown; ${known.length === 0 ? 'none is known' : `known are ${known.join(', ')}`}`;
}

/**
 * An unknown name, and the known one that is similar: `limt (did you mean limit?)`.
 *
 * @param prefix of all names, which does not make two of them similar.
 */
export function suggestFor(name: string, known: readonly string[], prefix = ''): string {
  const restOf = (whole: string) => whole.slice(prefix.length);
  const near = similarName(restOf(name), known.map(restOf));
  return near === undefined ? quoteName(name) : `${quoteName(name)} (did you mean ${prefix}${near}?)`;
}

/**
 * A name from a client: quoted unless it is a plain word, and with escapes for what does not print. Of a long
 * one only the length: somebody may have put a secret in its place.
 */
function quoteName(name: string): string {
  if (name.length > NAME_CHARS_MAX) return `a name of ${name.length} characters`;
  return /^[\w$.@-]+$/.test(name) ? name : printable(JSON.stringify(name));
}

/**
 * The known name that someone may have meant: the one with the fewest edits, where a swap of two neighbours
 * is one edit (optimal string alignment). Upper and lower case do not differ.
 *
 * @returns undefined when none is similar.
 */
function similarName(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = DISTANCE_MAX + 1;
  for (const candidate of known) {
    const chars = Math.max(name.length, candidate.length);
    const allowed = Math.min(DISTANCE_MAX, Math.floor(chars / CHARS_OF_DISTANCE), bestDistance - 1);
    // This also bounds the work for a name of a client.
    if (Math.abs(name.length - candidate.length) > allowed) continue;
    const distance = distanceOf(name.toLowerCase(), candidate.toLowerCase());
    if (distance > allowed) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

function distanceOf(from: string, to: string): number {
  let before: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const isSame = from[row - 1] === to[column - 1];
      const isSwap = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current[column] = Math.min(
        Number(last[column]) + 1,
        Number(current[column - 1]) + 1,
        Number(last[column - 1]) + (isSame ? 0 : 1),
        isSwap ? Number(before[column - 2]) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    before = last;
    last = current;
  }
  return Number(last[to.length]);
}
