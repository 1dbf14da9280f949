import type { JsonArray, JsonNode } from '@bundoc/shared/json/tree';
import { memberValue } from '@bundoc/shared/json/tree';
import { z } from 'zod';

/** Maximum steps of one pointer: no document nests deeper. */
const STEPS_MAX = 101;

/** A JSON Pointer (RFC 6901), as its decoded steps. */
export const jsonPointerSchema = z.string().transform((text, context): readonly string[] => {
  const steps = parsePointer(text);
  if (typeof steps !== 'string') return steps;
  context.addIssue({ code: 'custom', message: steps });
  return z.NEVER;
});

/** The steps, or the fault. */
function parsePointer(text: string): readonly string[] | string {
  if (text === '') return [];
  if (!text.startsWith('/')) return 'must be empty or begin with "/"';
  if (/~(?![01])/.test(text)) return 'must have "~" as "~0" or "~1" only';
  const steps = text.slice(1).split('/', STEPS_MAX);
  if (steps.length === STEPS_MAX) return 'is deeper than any document';
  const decoded = steps.map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  // A pointer could otherwise create the one member that no document may have.
  return decoded.includes('__proto__') ? 'must not name "__proto__"' : decoded;
}

/** The value at a pointer; undefined when there is none. */
export function valueAt(root: JsonNode, steps: readonly string[]): JsonNode | undefined {
  let node: JsonNode | undefined = root;
  for (const step of steps) {
    if (node === undefined) return undefined;
    if (node.kind === 'object') node = memberValue(node, step);
    else if (node.kind === 'array') node = node.items[indexOf(node, step) ?? -1]?.value;
    else return undefined;
  }
  return node;
}

/** The index of the item that a step names; undefined when there is no such item. */
export function indexOf(array: JsonArray, step: string): number | undefined {
  const index = arrayIndex(step);
  return index !== undefined && index < array.items.length ? index : undefined;
}

/** Parses an index: digits without leading zeros. */
export function arrayIndex(step: string): number | undefined {
  return /^(?:0|[1-9]\d{0,9})$/.test(step) ? Number(step) : undefined;
}
