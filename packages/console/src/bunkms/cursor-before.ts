/** The first characters of key names, in the order of the list. */
const FIRST = '0123456789abcdefghijklmnopqrstuvwxyz';
/** The other characters of key names, in the order of the list. */
const ALPHABET = '-.0123456789_abcdefghijklmnopqrstuvwxyz';
/** Maximum length of a key name. */
const NAME_MAX = 128;

/** The last possible name before a name: the list continues after a cursor, and must begin with the name. */
export function cursorBefore(name: string): string | undefined {
  const begin = name.slice(0, -1);
  const alphabet = begin === '' ? FIRST : ALPHABET;
  const before = alphabet[alphabet.indexOf(name.slice(-1)) - 1];
  const cursor = before === undefined ? begin : (begin + before).padEnd(NAME_MAX, ALPHABET.slice(-1));
  return /^[a-z0-9]/.test(cursor) ? cursor : undefined;
}
