/**
 * Builds the value of a JSON text, like `JSON.parse`, for texts whose member names hold escapes.
 *
 * `JSON.parse` of V8 13 and 14 (Node 24 and 26, nodejs/node#63785) may give a member with an escaped name
 * another name, one that an earlier and unrelated text had at that place: after `{"\\u0":1}`, the text
 * `{"\u005fid":1}` yields a member `\u0`, not `_id`. So one client could change how another's text is read.
 * Names that are written without an escape, and strings that are no names, are not affected.
 *
 * @param text is valid JSON without duplicate names and `__proto__`, and nests so little that recursion is
 * safe; the caller has checked all of it.
 */
export function readJson(text: string): unknown {
  let at = 0;

  const skipSpace = (): void => {
    while (at < text.length && isSpace(text.charCodeAt(at))) at++;
  };
  const readString = (): string => {
    const start = at++;
    while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    at++;
    return JSON.parse(text.slice(start, at)) as string;
  };
  const readObject = (): Record<string, unknown> => {
    const object: Record<string, unknown> = {};
    at++;
    for (skipSpace(); text[at] !== '}'; skipSpace()) {
      if (text[at] === ',') {
        at++;
        continue;
      }
      const name = readString();
      skipSpace();
      at++; // The colon.
      object[name] = readValue();
    }
    at++;
    return object;
  };
  const readArray = (): unknown[] => {
    const array: unknown[] = [];
    at++;
    for (skipSpace(); text[at] !== ']'; skipSpace()) {
      if (text[at] === ',') at++;
      else array.push(readValue());
    }
    at++;
    return array;
  };
  const readValue = (): unknown => {
    skipSpace();
    switch (text[at]) {
      case '{':
        return readObject();
      case '[':
        return readArray();
      case '"':
        return readString();
      default: {
        const start = at;
        while (at < text.length && !endsScalar(text.charCodeAt(at))) at++;
        return JSON.parse(text.slice(start, at));
      }
    }
  };

  return readValue();
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function endsScalar(code: number): boolean {
  return isSpace(code) || code === 0x2c || code === 0x5d || code === 0x7d;
}
