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

/**
 * A document whose objects have no members besides the documented ones, unless they allow more. A client must
 * ignore members that it does not know; a service may not send any.
 */
export function withClosedObjects(document: Json): Json {
  return closed(document, false) as Json;
}

/** @param isPart whether it is one of several schemas of the same value: each of them has some members. */
function closed(node: unknown, isPart: boolean): unknown {
  if (Array.isArray(node)) return node.map((one) => closed(one, isPart));
  if (typeof node !== 'object' || node === null) return node;
  const copy = Object.fromEntries(
    Object.entries(node).map(([name, member]) => [name, closed(member, name === 'allOf')]),
  );
  const isOpen = isPart || copy['type'] !== 'object' || copy['properties'] === undefined;
  return isOpen ? copy : { additionalProperties: false, ...copy };
}
