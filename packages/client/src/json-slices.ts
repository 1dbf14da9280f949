/**
 * Finds the values in a JSON text, so that each keeps its exact text: `JSON.parse` rounds big numbers and
 * reorders members. The text must be valid JSON.
 */

/** The values of the members of an object, each as its text. Of duplicate names the last one counts. */
export function memberTexts(text: string): Map<string, string> {
  const members = new Map<string, string>();
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (at < text.length && text[at] !== '}') {
    const nameEnd = endOfValue(text, at);
    const name = JSON.parse(text.slice(at, nameEnd)) as string;
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1);
    const end = endOfValue(text, start);
    members.set(name, text.slice(start, end));
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return members;
}

/** The elements of an array, each as its text. */
export function elementTexts(text: string): string[] {
  const elements: string[] = [];
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (at < text.length && text[at] !== ']') {
    const end = endOfValue(text, at);
    elements.push(text.slice(at, end));
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return elements;
}

/** The end of a number, `true`, `false` or `null`. */
const END_OF_SCALAR = /[\s,\]}:]|$/g;
/** The next string or bracket inside an array or object. */
const STRUCTURE = /["[\]{}]/g;

/** Index behind the value that begins at `at`. */
function endOfValue(text: string, at: number): number {
  const first = text[at];
  if (first === '"') return endOfString(text, at);
  if (first !== '{' && first !== '[') {
    END_OF_SCALAR.lastIndex = at;
    return END_OF_SCALAR.exec(text)?.index ?? text.length;
  }
  let depth = 0;
  for (let from = at; ; ) {
    STRUCTURE.lastIndex = from;
    const found = STRUCTURE.exec(text);
    if (found === null) throw new SyntaxError('the JSON text has no end');
    const [mark] = found;
    if (mark === '"') {
      from = endOfString(text, found.index);
      continue;
    }
    depth += mark === '{' || mark === '[' ? 1 : -1;
    from = found.index + 1;
    if (depth === 0) return from;
  }
}

function endOfString(text: string, at: number): number {
  for (let from = at + 1; ; ) {
    const quote = text.indexOf('"', from);
    if (quote === -1) throw new SyntaxError('the JSON text has no end');
    let before = quote;
    while (text[before - 1] === '\\') before--;
    if ((quote - before) % 2 === 0) return quote + 1;
    from = quote + 1;
  }
}

function skipSpace(text: string, at: number): number {
  let next = at;
  while (text[next] === ' ' || text[next] === '\n' || text[next] === '\t' || text[next] === '\r') next++;
  return next;
}
