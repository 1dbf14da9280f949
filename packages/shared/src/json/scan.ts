/** One member of an object, as offsets into the scanned bytes. */
export interface RootMember {
  /** The name after decoding of escapes. */
  readonly name: string;
  /** Just after the `{` or `,` before the member, where the whitespace before its name begins. */
  readonly start: number;
  /** The opening quote of the name. */
  readonly nameStart: number;
  /** The `,` or `}` after the member, where the whitespace after its value ends. */
  readonly end: number;
}

/** The positions of the members of an object. */
export interface ObjectMembers {
  /** Offset just after the `{` of the object; undefined when the value is not an object. */
  readonly bodyStart: number | undefined;
  /** Offset of its `}`. */
  readonly bodyEnd: number;
  readonly members: readonly RootMember[];
}

/** The result of a scan; the members are those of the root. */
export interface JsonScan extends ObjectMembers {
  /** The deepest nesting, or the first that was too deep, at which the scan ended. */
  readonly depth: number;
  /** Offset of a name that occurs for the second time in one object, at any depth. */
  readonly duplicateAt: number | undefined;
  /** Offset of the first name that is `__proto__`, at any depth and in any spelling. */
  readonly protoAt: number | undefined;
  /** A name is written with an escape, at any depth: `JSON.parse` may misread it, see `read.ts`. */
  readonly hasEscapedName: boolean;
  /** Objects and arrays, up to the first beyond {@link JSON_CONTAINERS_MAX}, at which the scan ended. */
  readonly containers: number;
}

/** Maximum nesting. `JSON.parse` overflows the stack some thousand levels deeper. */
export const JSON_DEPTH_MAX = 100;
/** Maximum objects and arrays of one text: an empty one takes 30 times as much memory as its two bytes. */
export const JSON_CONTAINERS_MAX = 1_000_000;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** The names of one object. They are in a Set only once a linear search would cost more. */
class NameSet {
  readonly #few: string[] = [];
  #many: Set<string> | undefined;

  /** @returns false when it has `name` already. */
  add(name: string): boolean {
    if (this.#many !== undefined) {
      const before = this.#many.size;
      return this.#many.add(name).size > before;
    }
    if (this.#few.includes(name)) return false;
    this.#few.push(name);
    if (this.#few.length > 16) this.#many = new Set(this.#few);
    return true;
  }
}

/**
 * Scans JSON text once, without recursion. It finds facts that `JSON.parse` does not report: nesting,
 * duplicate names, and the positions of the members of the root object.
 *
 * It is not a validator. On text that `JSON.parse` refuses, the result is meaningless, but the scan
 * terminates and throws nothing. It stops at a nesting beyond `depthMax`, and at too many containers. So scan
 * first, refuse texts beyond these bounds, parse, and only then use the rest of the result.
 */
export function scanJson(bytes: Buffer, depthMax: number = JSON_DEPTH_MAX): JsonScan {
  const members: RootMember[] = [];
  /** One entry for each open container: the names of an object, or undefined for an array. */
  const open: (NameSet | undefined)[] = [];
  let depth = 0;
  let containers = 0;
  let duplicateAt: number | undefined;
  let protoAt: number | undefined;
  let hasEscapedName = false;
  let bodyStart: number | undefined;
  let bodyEnd = bytes.length;
  let nameExpected = false;
  let memberStart = 0;
  let member: { name: string; nameStart: number } | undefined;

  const found = (): JsonScan => {
    const names = { duplicateAt, protoAt, hasEscapedName };
    return { bodyStart, bodyEnd, members, depth, ...names, containers };
  };
  const endMember = (end: number): void => {
    if (member !== undefined) members.push({ ...member, start: memberStart, end });
    member = undefined;
    memberStart = end + 1;
  };

  for (let at = 0; at < bytes.length; at++) {
    switch (bytes[at]) {
      case QUOTE: {
        const close = closingQuote(bytes, at);
        const names = open[open.length - 1];
        if (nameExpected && names !== undefined) {
          const raw = bytes.toString('utf8', at + 1, close);
          const isEscaped = raw.includes('\\');
          const name = isEscaped ? decodeName(raw) : raw;
          if (isEscaped) hasEscapedName = true;
          if (!names.add(name)) duplicateAt ??= at;
          if (name === '__proto__') protoAt ??= at;
          if (open.length === 1) member = { name, nameStart: at };
          nameExpected = false;
        }
        at = close;
        break;
      }
      case OPEN_BRACE:
      case OPEN_BRACKET: {
        const isObject = bytes[at] === OPEN_BRACE;
        open.push(isObject ? new NameSet() : undefined);
        depth = Math.max(depth, open.length);
        if (depth > depthMax || ++containers > JSON_CONTAINERS_MAX) return found();
        nameExpected = isObject;
        if (isObject && open.length === 1) {
          bodyStart = at + 1;
          memberStart = at + 1;
        }
        break;
      }
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        if (open.length === 1) {
          endMember(at);
          bodyEnd = at;
        }
        open.pop();
        nameExpected = false;
        break;
      case COMMA:
        nameExpected = open[open.length - 1] !== undefined;
        if (open.length === 1) endMember(at);
        break;
      case COLON:
        nameExpected = false;
        break;
      default:
    }
  }
  return found();
}

/** Bytes of a string up to which a loop finds its end faster than a native call: names, and most values. */
const SHORT_BYTES = 32;

/** Offset of the quote that ends the string opened at `openAt`; the last byte when there is none. */
export function closingQuote(bytes: Buffer, openAt: number): number {
  const shortEnd = Math.min(bytes.length, openAt + SHORT_BYTES);
  let at = openAt + 1;
  while (at < shortEnd && bytes[at] !== QUOTE) at++;
  if (at === shortEnd) at = bytes.indexOf(QUOTE, at);
  while (at !== -1) {
    let backslashes = 0;
    while (bytes[at - 1 - backslashes] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at;
    at = bytes.indexOf(QUOTE, at + 1);
  }
  return bytes.length - 1;
}

/** Decodes a single string, which V8 does correctly. */
function decodeName(raw: string): string {
  try {
    return String(JSON.parse(`"${raw}"`));
  } catch {
    return raw; // A bad escape: JSON.parse of the whole text refuses it.
  }
}

/** A located member: its value is from `valueStart` to `valueEnd`, without white space. */
export interface LocatedMember extends RootMember {
  readonly valueStart: number;
  readonly valueEnd: number;
  /** The members of the value, if it is an object and they were requested. */
  readonly inner: LocatedObject | undefined;
}

export interface LocatedObject extends ObjectMembers {
  readonly bodyStart: number;
  readonly members: readonly LocatedMember[];
}

/**
 * Finds the members of an object within a text, so that their bytes can be used unchanged.
 *
 * @param bytes valid JSON: the caller has parsed it.
 * @param openAt the `{` of the object.
 * @param levels also locates the members of values that are objects, down to this many levels.
 */
export function locateMembers(bytes: Buffer, openAt: number, levels = 0): LocatedObject {
  const members: LocatedMember[] = [];
  let start = openAt + 1;
  let at = skipSpace(bytes, start);
  while (bytes[at] !== CLOSE_BRACE) {
    const nameStart = at;
    const nameEnd = closingQuote(bytes, at);
    const raw = bytes.toString('utf8', nameStart + 1, nameEnd);
    const name = raw.includes('\\') ? decodeName(raw) : raw;
    const colonAt = skipSpace(bytes, nameEnd + 1);
    const valueStart = skipSpace(bytes, colonAt + 1);
    const inner =
      levels > 0 && bytes[valueStart] === OPEN_BRACE
        ? locateMembers(bytes, valueStart, levels - 1)
        : undefined;
    const valueEnd = inner === undefined ? endOfValue(bytes, valueStart) : inner.bodyEnd + 1;
    const end = skipSpace(bytes, valueEnd);
    members.push({ name, start, nameStart, valueStart, valueEnd, inner, end });
    if (bytes[end] === CLOSE_BRACE) {
      at = end;
    } else {
      start = end + 1;
      at = skipSpace(bytes, start);
    }
  }
  return { bodyStart: openAt + 1, bodyEnd: at, members };
}

/**
 * Finds the objects of an array that contains only objects within a text, as {@link locateMembers} does.
 *
 * @param openAt the `[` of the array.
 * @param levels as for {@link locateMembers}.
 */
export function locateObjects(bytes: Buffer, openAt: number, levels = 0): readonly LocatedObject[] {
  const objects: LocatedObject[] = [];
  let at = skipSpace(bytes, openAt + 1);
  while (bytes[at] === OPEN_BRACE) {
    const object = locateMembers(bytes, at, levels);
    objects.push(object);
    at = skipSpace(bytes, object.bodyEnd + 1);
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1);
  }
  return objects;
}

/** Where the value of a member of a scanned object begins. */
export function valueStartOf(bytes: Buffer, member: RootMember): number {
  const colonAt = skipSpace(bytes, closingQuote(bytes, member.nameStart) + 1);
  return skipSpace(bytes, colonAt + 1);
}

/** Offset just after the value that begins at `start`. */
function endOfValue(bytes: Buffer, start: number): number {
  let depth = 0;
  for (let at = start; at < bytes.length; at++) {
    switch (bytes[at]) {
      case QUOTE:
        at = closingQuote(bytes, at);
        if (depth === 0) return at + 1;
        break;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth++;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        if (depth === 0) return at;
        if (--depth === 0) return at + 1;
        break;
      case COMMA:
      case 0x20:
      case 0x0a:
      case 0x0d:
      case 0x09:
        if (depth === 0) return at;
        break;
      default:
    }
  }
  return bytes.length;
}

function skipSpace(bytes: Buffer, start: number): number {
  let at = start;
  while (bytes[at] === 0x20 || bytes[at] === 0x0a || bytes[at] === 0x0d || bytes[at] === 0x09) at++;
  return at;
}
