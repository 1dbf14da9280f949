import { closingQuote, decodeName, type ObjectMembers, type RootMember } from './scan.ts';

/** A member that was located: its value lies from `valueStart` to `valueEnd`, without white space. */
export interface LocatedMember extends RootMember {
  readonly valueStart: number;
  readonly valueEnd: number;
  /** The members of the value, when it is an object and they were asked for. */
  readonly inner: LocatedObject | undefined;
}

export interface LocatedObject extends ObjectMembers {
  readonly bodyStart: number;
  readonly members: readonly LocatedMember[];
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/**
 * Finds the members of an object within a text, whose bytes are then taken as they are.
 *
 * @param bytes are valid JSON: the caller has parsed them.
 * @param openAt the `{` of the object.
 * @param levels also locates the members of values that are objects, so many levels down.
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
 * Finds the objects of an array of nothing but objects within a text, as {@link locateMembers} does.
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

/** Offset behind the value that begins at `at`. */
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
