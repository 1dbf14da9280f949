import { hasCode } from '@bundoc/shared/contract/app-error';
import { type JsonObject, parseTree, treeText } from '@bundoc/shared/json/tree';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { REFUSED, updateNaively } from '../../testing/naive-update.ts';
import { patched } from '../../testing/patched.ts';
import { readPatch } from './read-patch.ts';

const BYTES_MAX = 100_000;

const applyText = (document: string, update: unknown): string => {
  const own = parseTree(document) as JsonObject;
  return treeText(
    patched(own, readPatch('update', Buffer.from(JSON.stringify(update)), BYTES_MAX), BYTES_MAX),
  );
};

const name = fc.constantFrom('a', 'a', 'b', 'c', '0');
// Quarters are exact as doubles, and so are their sums and products.
const number = fc.integer({ min: -12, max: 12 }).map((quarters) => quarters / 4 + 0);
const scalar = fc.oneof(number, number, fc.constantFrom(null, true, 'x', 'é'));
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    scalar,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(name, tie('value'), { maxKeys: 3, noNullPrototype: true }),
  ),
}));
const document = fc.dictionary(name, value, { minKeys: 1, maxKeys: 4, noNullPrototype: true });

const step = fc.oneof(
  { weight: 5, arbitrary: name },
  { weight: 3, arbitrary: fc.constantFrom('0', '1', '01') },
);
const path = fc.array(step, { minLength: 1, maxLength: 3 }).map((steps) => steps.join('.'));
const each = fc.array(value, { maxLength: 3 });
const end = fc.integer({ min: -4, max: 4 });
const condition = fc.oneof(fc.record({ $gte: number }), fc.record({ a: scalar }));
const pushed = fc.record({ $each: each, $position: end, $slice: end }, { requiredKeys: ['$each'] });
const change = fc.oneof(
  fc.tuple(fc.constant('$set'), path, value),
  fc.tuple(fc.constant('$unset'), path, fc.constant('')),
  fc.tuple(fc.constantFrom('$inc', '$mul'), path, number),
  fc.tuple(fc.constantFrom('$min', '$max'), path, scalar),
  fc.tuple(fc.constant('$push'), path, fc.oneof(value, pushed)),
  fc.tuple(fc.constant('$addToSet'), path, fc.oneof(value, fc.record({ $each: each }))),
  fc.tuple(fc.constant('$pull'), path, fc.oneof(scalar, fc.array(scalar, { maxLength: 2 }), condition)),
);
const update = fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
  const operators: Record<string, Record<string, unknown>> = {};
  for (const [operator, at, operand] of changes)
    operators[operator] = { ...operators[operator], [at]: operand };
  return operators;
});

/** The conditions of these tests. */
const holds = (element: unknown, condition: unknown): boolean => {
  const asked = condition as { $gte: number } | { a: unknown };
  if ('$gte' in asked) return typeof element === 'number' && element >= asked.$gte;
  if (typeof element !== 'object' || element === null || Array.isArray(element)) return false;
  const { a } = element as { a?: unknown };
  return a === asked.a || (Array.isArray(a) && a.includes(asked.a));
};

it('an update equals a naive evaluator on parsed values, or both refuse it', () => {
  const seen = { applied: 0, refused: 0 };
  fc.assert(
    fc.property(document, update, (target, asked) => {
      const expected = () => updateNaively(target, asked, holds);
      let result: string;
      try {
        result = applyText(JSON.stringify(target), asked);
      } catch (error) {
        if (hasCode(error, 'invalid_patch')) return;
        if (!hasCode(error, 'patch_inapplicable')) throw error;
        seen.refused++;
        expect(expected()).toBe(REFUSED);
        return;
      }
      seen.applied++;
      expect(JSON.parse(result)).toEqual(expected());
    }),
    { numRuns: 10_000 },
  );
  expect(Math.min(seen.applied, seen.refused)).toBeGreaterThan(1_000);
});

/** Spells the values of a document as JSON.stringify never does. */
const spelled = (target: object) =>
  JSON.stringify(target, null, 3)
    .replaceAll(/(\d)(?=[,\n])/g, '$1e0')
    .replaceAll('"x"', String.raw`"\u0078"`);

it('an update keeps the text of all members that it does not name, to the byte', () => {
  fc.assert(
    fc.property(document, update, (target, asked) => {
      const text = spelled(target);
      let result: JsonObject;
      try {
        result = parseTree(applyText(text, asked)) as JsonObject;
      } catch (error) {
        if (hasCode(error, 'invalid_patch', 'patch_inapplicable')) return;
        throw error;
      }
      const named = new Set(
        Object.values(asked).flatMap((one) => Object.keys(one).map((each) => each.split('.')[0])),
      );
      const textsOf = ({ members }: JsonObject) =>
        members
          .filter((member) => !named.has(member.name))
          .map(({ before, nameText, colon, value: node }) => before + nameText + colon + treeText(node));
      expect(textsOf(result)).toEqual(textsOf(parseTree(text) as JsonObject));
    }),
    { numRuns: 3_000 },
  );
});
