import { isDeepStrictEqual } from 'node:util';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { type JsonObject, parseTree, treeText } from '@bundoc/shared/json/tree';
import fc from 'fast-check';
import jsonMergePatch from 'json-merge-patch';
import { applyPatch, type Operation } from 'rfc6902';
import { describe, expect, it } from 'vitest';
import { patched } from '../../testing/patched.ts';
import { readPatch } from './read-patch.ts';

const BYTES_MAX = 100_000;

const apply = (kind: 'merge' | 'json', document: unknown, patch: unknown): unknown => {
  const own = parseTree(JSON.stringify(document)) as JsonObject;
  const change = readPatch(kind, Buffer.from(JSON.stringify(patch)), BYTES_MAX);
  return JSON.parse(treeText(patched(own, change, BYTES_MAX)));
};

const name = fc.constantFrom('a', 'a', 'b', 'b', 'x/y', 'm~n', '');
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    fc.constantFrom(null, true, 0, 1.5, 'text', 'é'),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(name, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
}));
const document = fc.dictionary(name, value, { minKeys: 2, maxKeys: 5, noNullPrototype: true });

const step = fc.oneof(
  { weight: 6, arbitrary: name },
  { weight: 4, arbitrary: fc.constantFrom('0', '1', '2', '-', '01') },
);
const pointer = fc
  .array(step, { minLength: 0, maxLength: 2 })
  .map((steps) => steps.map((one) => `/${one.replaceAll('~', '~0').replaceAll('/', '~1')}`).join(''));
const operation = fc.oneof(
  fc.record({ op: fc.constantFrom('add', 'replace', 'test'), path: pointer, value }),
  fc.record({ op: fc.constant('remove'), path: pointer }),
  fc.record({ op: fc.constantFrom('move', 'copy'), from: pointer, path: pointer }),
);

/** The result of the reference implementation. It cannot replace the root, so the document is a member. */
function byPeer(target: unknown, operations: readonly object[]): unknown {
  const root = { root: structuredClone(target) };
  const shifted = structuredClone(operations).map((one) =>
    Object.fromEntries(
      Object.entries(one).map(([key, part]) => [
        key,
        key === 'path' || key === 'from' ? `/root${part}` : part,
      ]),
    ),
  ) as unknown as Operation[];
  expect(applyPatch(root, shifted).every((error) => error === null)).toBe(true);
  return root.root;
}

interface Sent {
  readonly op: string;
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

const REFUSED = Symbol('refused');

/**
 * The rules in their simplest form, on plain values, with a copy for every step. The reference implementation
 * accepts more than they allow.
 */
function naively(target: unknown, operations: readonly Sent[]): unknown {
  let root: unknown = structuredClone(target);
  const steps = (text: string) =>
    text
      .split('/')
      .slice(1)
      .map((one) => one.replaceAll('~1', '/').replaceAll('~0', '~'));
  const find = (path: readonly string[]) =>
    path.reduce<unknown>((node, one) => {
      if (Array.isArray(node))
        return /^(0|[1-9]\d*)$/.test(one) && Number(one) < node.length ? node[Number(one)] : REFUSED;
      return isObject(node) && Object.hasOwn(node as object, one)
        ? (node as Record<string, unknown>)[one]
        : REFUSED;
    }, root);
  const add = (path: readonly string[], added: unknown): boolean => {
    const last = path.at(-1);
    if (last === undefined) {
      root = added;
      return true;
    }
    const container = find(path.slice(0, -1));
    if (Array.isArray(container)) {
      const index = last === '-' ? container.length : /^(0|[1-9]\d*)$/.test(last) ? Number(last) : -1;
      if (index < 0 || index > container.length) return false;
      container.splice(index, 0, added);
      return true;
    }
    if (!isObject(container)) return false;
    (container as Record<string, unknown>)[last] = added;
    return true;
  };
  const remove = (path: readonly string[]): void => {
    const container = find(path.slice(0, -1));
    const last = path.at(-1) as string;
    if (Array.isArray(container)) container.splice(Number(last), 1);
    else delete (container as Record<string, unknown>)[last];
  };
  for (const { op, path, from, value: sent } of structuredClone(operations) as Sent[]) {
    const at = steps(path);
    const source = steps(from ?? path);
    const present = find(op === 'add' ? [] : source);
    if (present === REFUSED) return REFUSED;
    if (op === 'test' && !isDeepStrictEqual(present, sent)) return REFUSED;
    if (op === 'remove' && at.length === 0) return REFUSED;
    if (op === 'remove') remove(at);
    if (op === 'move' && source.length > 0) remove(source);
    if (op === 'add' && !add(at, sent)) return REFUSED;
    if ((op === 'move' || op === 'copy') && !add(at, structuredClone(present))) return REFUSED;
    if (op === 'replace') {
      if (at.length > 0 && Array.isArray(find(at.slice(0, -1)))) remove(at);
      add(at, sent);
    }
  }
  return isObject(root) ? root : REFUSED;
}

const isObject = (one: unknown) => typeof one === 'object' && one !== null && !Array.isArray(one);

describe('a JSON Patch', () => {
  it('equals a reference implementation, or is refused when it breaks the rules', () => {
    const seen = { applied: 0, refused: 0 };
    fc.assert(
      fc.property(document, fc.array(operation, { minLength: 1, maxLength: 3 }), (target, operations) => {
        const expected = naively(target, operations);
        let result: unknown;
        try {
          result = apply('json', target, operations);
          seen.applied++;
        } catch (error) {
          if (hasCode(error, 'invalid_patch')) return;
          if (!hasCode(error, 'patch_inapplicable', 'patch_test_failed')) throw error;
          seen.refused++;
          expect(expected).toBe(REFUSED);
          return;
        }
        expect(result).toEqual(expected);
        expect(result).toEqual(byPeer(target, operations));
      }),
      { numRuns: 3_000 },
    );
    expect(Math.min(seen.applied, seen.refused)).toBeGreaterThan(200);
  });
});

describe('a merge patch', () => {
  it('equals a reference implementation, and leaves unnamed members unchanged', () => {
    fc.assert(
      fc.property(document, document, (target, patch) => {
        expect(apply('merge', target, patch)).toEqual(
          jsonMergePatch.apply(structuredClone(target), structuredClone(patch)),
        );
      }),
      { numRuns: 2_000 },
    );
  });
});
