/**
 * Builds the value of a JSON text, like `JSON.parse`, for texts with escapes in member names or numbers that
 * must stay exact.
 *
 * `JSON.parse` of V8 13 and 14 (Node 24 and 26, nodejs/node#63785) may give a member with an escaped name a
 * wrong name, from the same place of an earlier, unrelated text. After `{"\\u0":1}`, the text
 * `{"\u005fid":1}` yields a member `\u0`, not `_id`. So one client could change how another client's text is
 * read. Names without escapes, and strings that are not names, are not affected.
 *
 * @param text valid JSON without duplicate names and `__proto__`, with little enough nesting for recursion.
 *   The caller has checked all of it.
 * @param readNumber returns the value of a number; by default as `JSON.parse` does.
 */
export function readJson(text: string, readNumber: (text: string) => unknown = Number): unknown {
  return new Reader(text, readNumber).value();
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;

class Reader {
  readonly #text: string;
  readonly #readNumber: (text: string) => unknown;
  #at = 0;

  constructor(text: string, readNumber: (text: string) => unknown) {
    this.#text = text;
    this.#readNumber = readNumber;
  }

  value(): unknown {
    switch (this.#next()) {
      case '{':
        return this.#object();
      case '[':
        return this.#array();
      case '"':
        return this.#string();
      case 't':
        this.#at += 4;
        return true;
      case 'f':
        this.#at += 5;
        return false;
      case 'n':
        this.#at += 4;
        return null;
      default:
        return this.#number();
    }
  }

  /** The next character except white space, colons and commas. */
  #next(): string | undefined {
    const text = this.#text;
    for (;;) {
      const code = text.charCodeAt(this.#at);
      if (code > 0x20 && code !== COMMA && code !== COLON) return text[this.#at];
      if (Number.isNaN(code)) return undefined;
      this.#at++;
    }
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    this.#at++;
    while (this.#next() === '"') {
      const name = this.#string();
      object[name] = this.value();
    }
    this.#at++;
    return object;
  }

  #array(): unknown[] {
    const array: unknown[] = [];
    this.#at++;
    for (let next = this.#next(); next !== ']' && next !== undefined; next = this.#next())
      array.push(this.value());
    this.#at++;
    return array;
  }

  #string(): string {
    const text = this.#text;
    const start = this.#at;
    let escaped = false;
    let at = start + 1;
    for (let code = text.charCodeAt(at); code !== QUOTE; code = text.charCodeAt(at)) {
      if (code === BACKSLASH) {
        escaped = true;
        at++;
      }
      at++;
    }
    this.#at = at + 1;
    return escaped ? (JSON.parse(text.slice(start, at + 1)) as string) : text.slice(start + 1, at);
  }

  #number(): unknown {
    const start = this.#at;
    const text = this.#text;
    while (isNumeric(text.charCodeAt(this.#at))) this.#at++;
    return this.#readNumber(text.slice(start, this.#at));
  }
}

/** One of `+ - . 0-9 E e`. */
function isNumeric(code: number): boolean {
  return (
    (code >= 0x30 && code <= 0x39) ||
    code === 0x2b ||
    code === 0x2d ||
    code === 0x2e ||
    code === 0x45 ||
    code === 0x65
  );
}
