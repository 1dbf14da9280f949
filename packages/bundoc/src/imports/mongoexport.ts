import { type JsonNode, type JsonObject, memberValue, treeText } from '@bundoc/shared/json/tree';
import {
  type ForeignFormat,
  NOT_FINITE,
  NUMBER,
  pathTo,
  type RefusedDocument,
  refusal,
  stringOf,
  timeText,
} from './foreign.ts';

/** The output of mongoexport: MongoDB Extended JSON v2, relaxed or canonical, as lines or as one array. */
export const mongoexport: ForeignFormat = {
  mayBeEmpty: true,
  reader: () => {
    const ids = new IdTexts();
    return (document) => {
      const id = memberValue(document, '_id');
      if (id === undefined)
        for (const name of ['rows', 'documents', 'document'])
          if (memberValue(document, name) !== undefined)
            throw refusal(name, 'this looks like an answer of CouchDB or Firestore: try another --format');
      return {
        id: id === undefined ? undefined : ids.textOf(id),
        members: document.members
          .filter(({ name }) => name !== '_id')
          .map(({ name, value }) => [name, textOf(value, name)]),
      };
    };
  },
};

/**
 * The texts of ids. Ids of two types can have the same text, as `7` and `"7"`, and one document would then
 * replace the other. So of these types, only the one that comes first is taken.
 */
class IdTexts {
  /** Whether the ids of a look were texts, by look. */
  readonly #texts = new Map<string, boolean>();

  textOf(node: JsonNode): string {
    const text = textOf(node, '_id');
    const id = NUMBER.test(text) ? text : text.startsWith('"') ? (JSON.parse(text) as string) : undefined;
    if (id === undefined)
      throw refusal(
        '_id',
        'an id is a text, a number, an ObjectId, a UUID or a date; map it before the export',
      );
    const look = LOOKS.find(([pattern]) => pattern.test(id))?.[1];
    if (look === undefined) return id;
    const isText = stringOf(node) !== undefined;
    if ((this.#texts.get(look) ?? isText) !== isText)
      throw refusal(
        '_id',
        `there are ids of two types that both look like ${look}: they could be equal here`,
      );
    this.#texts.set(look, isText);
    return id;
  }
}

const LOOKS: readonly (readonly [pattern: RegExp, look: string])[] = [
  [NUMBER, 'a number'],
  [/^(?:NaN|-?Infinity)$/, 'a number'],
  [/^[\da-f]{24}$/, 'an ObjectId'],
  [/^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/, 'a UUID'],
  [/^\d{4}-\d\d-\d\dT[\d:.]+Z$/, 'a date'],
];

/** @throws RefusedDocument */
function textOf(node: JsonNode, path: string): string {
  if (node.kind === 'scalar') return node.text;
  if (node.kind === 'array')
    return `[${node.items.map(({ value }, at) => textOf(value, pathTo(path, at))).join(',')}]`;
  const [first] = node.members;
  if (first?.name.startsWith('$')) {
    const type = TYPES.find(({ names }) => isSubset(node, names));
    if (type !== undefined) return type.text(node, path);
    if (LEGACY.some((names) => isSubset(node, names)))
      throw refusal(path, `${first.name} is of Extended JSON v1: export with mongoexport 4.2 or newer`);
    if (TYPES.some(({ names }) => first.name === names[0]))
      throw refusal(path, `${first.name} has members that Extended JSON does not know`);
  }
  const members = node.members.map(
    ({ name, nameText, value }) => `${nameText}:${textOf(value, pathTo(path, name))}`,
  );
  return `{${members.join(',')}}`;
}

/** Whether an object has all of these names and no other. A name with `?` may be absent. */
function isSubset({ members }: JsonObject, names: readonly string[]): boolean {
  const needed = names.filter((name) => !name.endsWith('?'));
  return (
    needed.every((name) => members.some((member) => member.name === name)) &&
    members.every(({ name }) => names.includes(name) || names.includes(`${name}?`))
  );
}

const LEGACY: readonly (readonly string[])[] = [
  ['$binary', '$type'],
  ['$regex', '$options'],
];

interface ExtendedType {
  readonly names: readonly string[];
  readonly text: (object: JsonObject, path: string) => string;
}

/** A type whose object has one member, with a string. */
function ofString(name: string, text: (value: string) => string | undefined): ExtendedType {
  return {
    names: [name],
    text: (object, path) => {
      const value = stringOf(memberValue(object, name));
      const result = value === undefined ? undefined : text(value);
      if (result === undefined) throw unreadable(name, path);
      return result;
    },
  };
}

/** A type of which an object with named parts, none of them an object, is kept. */
function ofParts(name: string, parts: readonly string[]): ExtendedType {
  return {
    names: [name],
    text: (object, path) => {
      const value = memberValue(object, name);
      if (value?.kind !== 'object' || !isSubset(value, parts) || value.depth > 1)
        throw unreadable(name, path);
      return treeText(value);
    },
  };
}

const integer = (bits: number) => (value: string) =>
  /^-?\d{1,20}$/.test(value) && NUMBER.test(value) && BigInt.asIntN(bits, BigInt(value)) === BigInt(value)
    ? value
    : undefined;
const number = (value: string) =>
  NOT_FINITE.has(value) ? `"${value}"` : NUMBER.test(value) ? value : undefined;
const without = (name: string): ExtendedType => ({
  names: [name],
  text: (_object, path) => {
    throw refusal(path, `JSON has nothing like ${name}`);
  },
});

/** The types of Extended JSON v2, by the names of their objects. */
const TYPES: readonly ExtendedType[] = [
  ofString('$oid', (id) => (/^[\da-f]{24}$/i.test(id) ? JSON.stringify(id.toLowerCase()) : undefined)),
  ofString('$numberInt', integer(32)),
  ofString('$numberLong', integer(64)),
  ofString('$numberDouble', number),
  ofString('$numberDecimal', number),
  ofString('$symbol', (symbol) => JSON.stringify(symbol)),
  ofString('$uuid', (uuid) => uuidText(Buffer.from(uuid.replaceAll('-', ''), 'hex'))),
  { names: ['$date'], text: dateText },
  { names: ['$binary'], text: binaryText },
  ofParts('$timestamp', ['t', 'i']),
  ofParts('$regularExpression', ['pattern', 'options']),
  {
    names: ['$code', '$scope?'],
    text: (object, path) => {
      const code = memberValue(object, '$code');
      const scope = memberValue(object, '$scope');
      if (code === undefined || stringOf(code) === undefined) throw unreadable('$code', path);
      const rest = scope === undefined ? '' : `,"scope":${textOf(scope, pathTo(path, '$scope'))}`;
      return `{"code":${treeText(code)}${rest}}`;
    },
  },
  {
    names: ['$dbPointer'],
    text: (object, path) => textOf(memberValue(object, '$dbPointer') as JsonNode, path),
  },
  { names: ['$undefined'], text: () => 'null' },
  without('$minKey'),
  without('$maxKey'),
];

function unreadable(name: string, path: string): RefusedDocument {
  return refusal(path, `the ${name} cannot be read`);
}

function dateText(object: JsonObject, path: string): string {
  const value = memberValue(object, '$date') as JsonNode;
  if (value.kind === 'scalar' && !value.text.startsWith('"'))
    throw refusal(path, '$date with a number is of Extended JSON v1: export with mongoexport 4.2 or newer');
  const ms = value.kind === 'object' ? stringOf(memberValue(value, '$numberLong')) : undefined;
  const date = ms === undefined || !/^-?\d{1,16}$/.test(ms) ? undefined : new Date(Number(ms));
  const isDate = date !== undefined && !Number.isNaN(date.getTime());
  const time = timeText(isDate ? date.toISOString() : (stringOf(value) ?? ''));
  if (time === undefined) throw refusal(path, '$date is no time of the years 0000 to 9999');
  return `"${time}"`;
}

function binaryText(object: JsonObject, path: string): string {
  const value = memberValue(object, '$binary') as JsonNode;
  if (value.kind !== 'object' || !isSubset(value, ['base64', 'subType'])) throw unreadable('$binary', path);
  const base64 = stringOf(memberValue(value, 'base64'));
  const subType = stringOf(memberValue(value, 'subType'));
  if (
    base64 === undefined ||
    subType === undefined ||
    Buffer.from(base64, 'base64').toString('base64') !== base64
  )
    throw unreadable('$binary', path);
  const uuid = /^0?4$/.test(subType) ? uuidText(Buffer.from(base64, 'base64')) : undefined;
  if (uuid !== undefined) return uuid;
  return /^0?0$/.test(subType) ? JSON.stringify(base64) : treeText(value);
}

function uuidText(bytes: Buffer): string | undefined {
  if (bytes.length !== 16) return undefined;
  return `"${bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')}"`;
}
