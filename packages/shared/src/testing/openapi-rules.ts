import type { Json } from './openapi.ts';

/**
 * The schemas of a document that generators of clients misread: an object that allows further members and
 * has a member with `const`. orval makes of it a constant value with an index signature, which does not
 * compile. `enum` with one value means the same, and generators understand it.
 */
export function misreadSchemas(document: Json): string[] {
  return walk(document, '#');
}

function walk(node: unknown, path: string): string[] {
  if (typeof node !== 'object' || node === null) return [];
  const below = Object.entries(node).flatMap(([name, member]) => walk(member, `${path}/${name}`));
  const { additionalProperties = false, properties = {} } = node as Json;
  if (additionalProperties === false) return below;
  const constants = Object.entries(properties as Json).filter(([, schema]) => isConstant(schema));
  return [
    ...constants.map(([name]) => `${path}: ${name} is a const beside additionalProperties; use an enum`),
    ...below,
  ];
}

function isConstant(schema: unknown): boolean {
  return typeof schema === 'object' && schema !== null && 'const' in schema;
}
