import { AppError } from '../contract/app-error.ts';

/**
 * JSON text as a tree that keeps every character. Unchanged parts are written back exactly as they were read,
 * with numbers, escapes, the order of members and white space. Trees are immutable: an edit creates a new
 * tree that shares the unchanged parts.
 */
export type JsonNode = JsonScalar | JsonArray | JsonObject;

interface Measured {
  /** UTF-16 units of the text. */
  readonly length: number;
  /** Levels of nested containers, itself included; 0 for a scalar. */
  readonly depth: number;
}

export interface JsonScalar extends Measured {
  readonly kind: 'scalar';
  readonly text: string;
}

/** An item of an array, with the white space around it. */
export interface JsonItem {
  readonly before: string;
  readonly value: JsonNode;
  readonly after: string;
}

/** A member of an object, with the white space around it. */
export interface JsonMember extends JsonItem {
  /** Decoded. */
  readonly name: string;
  /** As it is written, quotes included. */
  readonly nameText: string;
  /** The colon with the white space around it. */
  readonly colon: string;
}

export interface JsonArray extends Measured {
  readonly kind: 'array';
  readonly items: readonly JsonItem[];
  /** As it was read; undefined after a change. */
  readonly text: string | undefined;
}

export interface JsonObject extends Measured {
  readonly kind: 'object';
  readonly members: readonly JsonMember[];
  /** As it was read; undefined after a change. */
  readonly text: string | undefined;
}

/** Maximum white space that a new item copies from its neighbour. */
const SPACE_COPIED_MAX = 64;

/**
 * Maximum values of one tree. Each takes some 150 bytes, and 16 MiB of text could have eight million values.
 */
export const TREE_VALUES_MAX = 2_000_000;

/**
 * Reads a text into a tree.
 *
 * @throws AppError `payload_too_large` for one of over {@link TREE_VALUES_MAX} values.
 * @param text valid JSON without duplicate names, with little enough nesting for recursion. The caller has
 *   checked all of it.
 */
export function parseTree(text: string): JsonNode {
  let at = 0;
  let values = 0;

  const space = (): string => {
    const start = at;
    while (isSpace(text.charCodeAt(at))) at++;
    return start === at ? '' : text.slice(start, at);
  };
  const string = (): string => {
    const start = at;
    at = closingQuote(text, at) + 1;
    return text.slice(start, at);
  };
  const array = (): JsonArray => {
    const start = at++;
    const items: JsonItem[] = [];
    for (let before = space(); text[at] !== ']'; before = space()) {
      items.push({ before, value: value(), after: space() });
      if (text[at] === ',') at++;
    }
    return arrayOf(items, text.slice(start, ++at));
  };
  const object = (): JsonObject => {
    const start = at++;
    const members: JsonMember[] = [];
    for (let before = space(); text[at] !== '}'; before = space()) {
      const nameText = string();
      const colonAt = at;
      space();
      at++;
      space();
      const colon = at === colonAt + 1 ? ':' : text.slice(colonAt, at);
      members.push({
        before,
        name: decodeString(nameText),
        nameText,
        colon,
        value: value(),
        after: space(),
      });
      if (text[at] === ',') at++;
    }
    return objectOf(members, text.slice(start, ++at));
  };
  const value = (): JsonNode => {
    if (++values > TREE_VALUES_MAX)
      throw new AppError('payload_too_large', {
        detail: `a patch, and a document that is patched, has at most ${TREE_VALUES_MAX} values`,
      });
    switch (text[at]) {
      case '{':
        return object();
      case '[':
        return array();
      case '"':
        return scalarOf(string());
      default: {
        const start = at;
        while (at < text.length && !endsScalar(text.charCodeAt(at))) at++;
        return scalarOf(text.slice(start, at));
      }
    }
  };

  space();
  return value();
}

/** The text of a tree. An unchanged tree has the text that it was read from. */
export function treeText(node: JsonNode): string {
  const parts: string[] = [];
  writeTree(node, parts);
  return parts.join('');
}

function writeTree(node: JsonNode, parts: string[]): void {
  if (node.kind === 'scalar') {
    parts.push(node.text);
    return;
  }
  if (node.text !== undefined) {
    parts.push(node.text);
    return;
  }
  if (node.kind === 'array') {
    parts.push('[');
    for (const [at, { before, value, after }] of node.items.entries()) {
      parts.push(at === 0 ? before : `,${before}`);
      writeTree(value, parts);
      parts.push(after);
    }
    parts.push(']');
    return;
  }
  parts.push('{');
  for (const [at, { before, nameText, colon, value, after }] of node.members.entries()) {
    parts.push(at === 0 ? before : `,${before}`, nameText, colon);
    writeTree(value, parts);
    parts.push(after);
  }
  parts.push('}');
}

/** A string, number, `true`, `false` or `null` with its text. */
export function scalarOf(text: string): JsonScalar {
  return { kind: 'scalar', text, length: text.length, depth: 0 };
}

/** @param text the text of the array, if known. */
export function arrayOf(items: readonly JsonItem[], text?: string): JsonArray {
  let length = 1 + Math.max(1, items.length);
  let depth = 0;
  for (const { before, value, after } of items) {
    length += before.length + value.length + after.length;
    if (value.depth > depth) depth = value.depth;
  }
  return { kind: 'array', items, text, length: text?.length ?? length, depth: depth + 1 };
}

/** @param text the text of the object, if known. */
export function objectOf(members: readonly JsonMember[], text?: string): JsonObject {
  let length = 1 + Math.max(1, members.length);
  let depth = 0;
  for (const { before, nameText, colon, value, after } of members) {
    length += before.length + nameText.length + colon.length + value.length + after.length;
    if (value.depth > depth) depth = value.depth;
  }
  return { kind: 'object', members, text, length: text?.length ?? length, depth: depth + 1 };
}

/** The value of a member; undefined when there is no such member. */
export function memberValue(object: JsonObject, name: string): JsonNode | undefined {
  return object.members.find((member) => member.name === name)?.value;
}

/**
 * The object with a member set. A member with the name is replaced; a new one comes last, with the white
 * space of the former last member.
 *
 * @param nameText the text of a new name; by default from `JSON.stringify`.
 */
export function withMember(
  object: JsonObject,
  name: string,
  value: JsonNode,
  nameText: string = JSON.stringify(name),
): JsonObject {
  const { members } = object;
  const index = members.findIndex((member) => member.name === name);
  const present = members[index];
  if (present !== undefined) return objectOf(members.with(index, { ...present, value }));
  return withNewMembers(object, [{ name, nameText, value }]);
}

/** The object with members of new names at its end, with the white space of the former last member. */
export function withNewMembers(
  { members }: JsonObject,
  added: readonly Pick<JsonMember, 'name' | 'nameText' | 'value'>[],
): JsonObject {
  if (added.length === 0) return objectOf(members);
  const last = members.at(-1);
  const layout = { before: copied(last?.before), colon: copied(last?.colon, ':'), after: '' };
  const result = members.slice(0, -1);
  if (last !== undefined) result.push({ ...last, after: '' });
  for (const { name, nameText, value } of added) result.push({ ...layout, name, nameText, value });
  const end = result.at(-1);
  if (end !== undefined) result[result.length - 1] = { ...end, after: last?.after ?? '' };
  return objectOf(result);
}

/** The object without a member. */
export function withoutMember(object: JsonObject, name: string): JsonObject {
  return objectOf(object.members.filter((member) => member.name !== name));
}

/** The array with an item inserted at `index`, or at its end. */
export function withItem(array: JsonArray, index: number, value: JsonNode): JsonArray {
  return withItems(array, index, [value]);
}

/** The array with items inserted at `index`, or at its end, with the white space of their neighbour. */
export function withItems(array: JsonArray, index: number, values: readonly JsonNode[]): JsonArray {
  const { items } = array;
  const last = items.at(-1);
  const before = copied((items[index] ?? last)?.before);
  const added = values.map((value) => ({ before, value, after: '' }));
  const end = added.at(-1);
  if (end === undefined) return array;
  if (last === undefined) return arrayOf(added);
  if (index < items.length) return arrayOf([...items.slice(0, index), ...added, ...items.slice(index)]);
  added[added.length - 1] = { ...end, after: last.after };
  return arrayOf([...items.slice(0, -1), { ...last, after: '' }, ...added]);
}

/** The array with another value at `index`, which must exist. */
export function withItemReplaced(array: JsonArray, index: number, value: JsonNode): JsonArray {
  const item = array.items[index];
  if (item === undefined) throw new RangeError('there is no such item');
  return arrayOf(array.items.with(index, { ...item, value }));
}

/** The array without the item at `index`. */
export function withoutItem(array: JsonArray, index: number): JsonArray {
  return arrayOf(array.items.toSpliced(index, 1));
}

/** The decoded value of a JSON string. */
export function decodeString(text: string): string {
  return text.includes('\\') ? (JSON.parse(text) as string) : text.slice(1, -1);
}

/** White space is copied for a consistent layout, but not when it is long. */
function copied(space = '', otherwise = ''): string {
  return space !== '' && space.length <= SPACE_COPIED_MAX ? space : otherwise;
}

/** Offset of the quote that ends the string opened at `openAt`. */
function closingQuote(text: string, openAt: number): number {
  for (let at = text.indexOf('"', openAt + 1); ; at = text.indexOf('"', at + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(at - 1 - backslashes) === 0x5c) backslashes++;
    if (backslashes % 2 === 0) return at;
  }
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function endsScalar(code: number): boolean {
  return isSpace(code) || code === 0x2c || code === 0x5d || code === 0x7d;
}
