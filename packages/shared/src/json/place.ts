/** How far into a text a fault is looked for, characters: a longest document. */
const LOOKED_AT_MAX = 1_048_576;

const SPACE = /[ \t\n\r]*/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids these in strings.
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const LITERAL = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;

/** Where a text ends, for a person: `line 3, column 14`. Both begin at 1; a column counts UTF-16 units. */
export function placeAfter(text: string): string {
  const column = text.length - text.lastIndexOf('\n');
  return `line ${text.split('\n').length}, column ${column}`;
}

/** What often stands at a fault, and what JSON wants. */
const HINTS: readonly (readonly [at: RegExp, hint: string])[] = [
  [/-?(?:NaN|Infinity)\b/y, 'JSON has no NaN and no Infinity; write null or a string'],
  [/undefined\b/y, 'JSON has no undefined; write null, or leave the member out'],
  [/(?:True|False|None)\b/y, 'JSON has true, false and null'],
  [/'|(?<=[{,][ \t\n\r]*)[\w$]+[ \t\n\r]*:/y, 'names and strings need double quotes'],
  [/(?<=(?:^|[{[,:])[ \t\n\r]*)[\p{L}_$]/uy, 'names and strings need double quotes'],
  [/(?<=,[ \t\n\r]*)[}\]]/y, 'no comma may follow the last item'],
  [/\/[/*]|#/y, 'JSON has no comments'],
  [/[\t\n\r]/y, 'write \\n or \\t for a line break or a tab in a string'],
  [/$/y, 'the text ends too early'],
];

/**
 * Says where and why a text is not JSON. It quotes no part of the text, which may be a secret.
 *
 * @returns such as `line 3, column 14: JSON has no comments`.
 */
export function faultOf(text: string): string {
  const at = faultOffset(text);
  if (at === undefined) return `after the first ${LOOKED_AT_MAX} characters`;
  const found = HINTS.find(([pattern]) => {
    pattern.lastIndex = at;
    return pattern.test(text);
  });
  const place = placeAfter(text.slice(0, at));
  return found === undefined ? place : `${place}: ${found[1]}`;
}

/**
 * Finds where a text stops being JSON. `JSON.parse` names the place of some faults only, beside a part of the
 * text.
 *
 * @returns the offset of the first character that cannot stand there: the length when the text ends too
 *   early; undefined when it is far inside.
 */
export function faultOffset(text: string): number | undefined {
  const scan = new FaultScan(text);
  while (scan.at <= LOOKED_AT_MAX) if (!scan.step()) return scan.at;
  return undefined;
}

/** Reads one token after the other. */
class FaultScan {
  at = 0;
  readonly #text: string;
  /** What closes each open container. */
  readonly #open: string[] = [];
  #expected: 'value' | 'name' | 'separator' = 'value';
  /** An empty container may end here. */
  #mayEnd = false;

  constructor(text: string) {
    this.#text = text;
  }

  /** @returns false at the fault, which is at {@link at}. */
  step(): boolean {
    this.#skip(SPACE);
    const char = this.#text[this.at];
    if (this.#expected === 'separator' || this.#mayEnd) {
      if (char !== undefined && char === this.#open.at(-1)) {
        this.#open.pop();
        return this.#pass('separator');
      }
      if (this.#expected === 'separator')
        return (
          char === ',' && this.#open.length > 0 && this.#pass(this.#open.at(-1) === '}' ? 'name' : 'value')
        );
    }
    if (this.#expected === 'name')
      return (
        char === '"' &&
        this.#string() &&
        this.#skip(SPACE) &&
        this.#text[this.at] === ':' &&
        this.#pass('value')
      );
    if (char === '{' || char === '[') {
      this.#open.push(char === '{' ? '}' : ']');
      return this.#pass(char === '{' ? 'name' : 'value', true);
    }
    this.#expected = 'separator';
    this.#mayEnd = false;
    return char === '"' ? this.#string() : this.#skip(LITERAL);
  }

  #pass(expected: 'value' | 'name' | 'separator', mayEnd = false): true {
    this.at++;
    this.#expected = expected;
    this.#mayEnd = mayEnd;
    return true;
  }

  #skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.at;
    if (!pattern.test(this.#text)) return false;
    this.at = pattern.lastIndex;
    return true;
  }

  #string(): boolean {
    this.at++;
    while (this.#skip(PLAIN)) {
      if (this.#text[this.at] === '"') {
        this.at++;
        return true;
      }
      if (!this.#skip(ESCAPE)) return false;
    }
    return false;
  }
}
