import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { elementTexts, memberTexts } from './json-slices.ts';

/** JSON texts with white space anywhere, escapes, and numbers that a double cannot represent. */
const space = fc.stringMatching(/^[ \n\t\r]{0,2}$/);
const scalar = fc.oneof(
  fc.constantFrom('12345678901234567890', '1.10', '-0', '1e400', 'true', 'false', 'null'),
  fc.string({ unit: 'binary' }).map((text) => JSON.stringify(text)),
  fc.constantFrom('"\\\\"', '"\\""', '"[{\\"}]"', '"\\u005fid"'),
);
const { json } = fc.letrec<{ json: string; array: string; object: string }>((tie) => ({
  json: fc.oneof({ maxDepth: 4 }, scalar, tie('array'), tie('object')),
  array: fc
    .tuple(fc.array(tie('json'), { maxLength: 4 }), space)
    .map(([all, s]) => `[${s}${all.join(`${s},${s}`)}${s}]`),
  object: fc
    .tuple(
      fc.array(
        fc.tuple(
          fc.string().map((name) => JSON.stringify(name)),
          tie('json'),
        ),
        { maxLength: 4 },
      ),
      space,
    )
    .map(
      ([all, s]) => `{${s}${all.map(([name, value]) => `${name}${s}:${s}${value}`).join(`${s},${s}`)}${s}}`,
    ),
}));

describe('the values of a JSON text', () => {
  it('the values of a JSON array keep their exact texts', () => {
    fc.assert(
      fc.property(fc.array(json), space, (all, s) => {
        expect(elementTexts(`${s}[${s}${all.join(`${s},${s}`)}${s}]${s}`)).toEqual(all);
      }),
    );
  });

  it('the values of a JSON object are found by name and keep their exact texts', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.string(), json)), space, (all, s) => {
        const members = all.map(([name, value]) => `${JSON.stringify(name)}${s}:${s}${value}`);
        const text = `${s}{${s}${members.join(`${s},${s}`)}${s}}${s}`;
        expect([...memberTexts(text)].sort()).toEqual([...new Map(all)].sort());
      }),
    );
  });

  it('the values of a JSON text that is cut short are refused with an error', () => {
    for (const text of ['[{"a":1', '["a', '{"a":[1,2']) {
      expect(() => (text[0] === '[' ? elementTexts(text) : memberTexts(text))).toThrow(SyntaxError);
    }
  });
});
