import { equalNumbers } from './decimal.ts';
import { decodeString, type JsonNode, type JsonObject } from './tree.ts';

/**
 * Whether two trees are the same JSON value: numbers by exact decimal value, strings after decoding, members
 * in any order (RFC 6902, section 4.6). The spelling of either text has no effect.
 */
export function equalTrees(a: JsonNode, b: JsonNode): boolean {
  if (a.text !== undefined && a.text === b.text) return true;
  if (a.kind === 'scalar') return b.kind === 'scalar' && equalScalars(a.text, b.text);
  if (a.depth !== b.depth) return false;
  if (a.kind === 'array') {
    if (b.kind !== 'array' || a.items.length !== b.items.length) return false;
    return a.items.every(({ value }, index) => {
      const other = b.items[index];
      return other !== undefined && equalTrees(value, other.value);
    });
  }
  return b.kind === 'object' && equalObjects(a, b);
}

function equalObjects(a: JsonObject, b: JsonObject): boolean {
  if (a.members.length !== b.members.length) return false;
  const others = new Map(b.members.map(({ name, value }) => [name, value]));
  return a.members.every(({ name, value }) => {
    const other = others.get(name);
    return other !== undefined && equalTrees(value, other);
  });
}

function equalScalars(a: string, b: string): boolean {
  if (a === b) return true;
  const isString = a.startsWith('"');
  if (isString !== b.startsWith('"')) return false;
  if (isString) return decodeString(a) === decodeString(b);
  return isNumber(a) && isNumber(b) && equalNumbers(a, b);
}

function isNumber(text: string): boolean {
  return !(text === 'true' || text === 'false' || text === 'null');
}
