import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { naiveCompare, naiveMatches, naiveOf } from '../testing/naive-query.ts';
import { documentText, valueText, whereText } from '../testing/query-arbitraries.ts';
import { compareValues } from '../values/compare.ts';
import { encodeExactly, encodeKeyPart, invertOrder } from '../values/key.ts';
import { readValue } from '../values/value.ts';
import { writeValue } from '../values/write-value.ts';
import { compileWhere } from './evaluate.ts';
import { whereSchema } from './where.ts';

const RUNS = Number(process.env['QUERY_RUNS'] ?? 3_000);
const sign = (order: number) => Math.sign(order) + 0;
const inOrder = (a: string, b: string) => (a < b ? -1 : Number(a > b));

describe('conditions', () => {
  it('match the documents that a naive evaluator matches', () => {
    const hits = { true: 0, false: 0 };
    fc.assert(
      fc.property(whereText, fc.array(documentText, { minLength: 1, maxLength: 8 }), (where, documents) => {
        const parsed = whereSchema.safeParse(readValue(where));
        // Occasionally one nests deeper than is allowed.
        fc.pre(parsed.success);
        const holds = compileWhere(parsed.data);
        for (const document of documents) {
          const expected = naiveMatches(naiveOf(document), naiveOf(where));
          hits[`${expected}`]++;
          expect(holds(readValue(document))).toBe(expected);
        }
      }),
      { numRuns: RUNS },
    );
    // Neither answer is so rare that the test would prove nothing.
    expect(Math.min(hits.true, hits.false)).toBeGreaterThan(RUNS / 10);
  });
});

describe('the order of values', () => {
  it('is the documented total order, and equals the order of their keys', () => {
    fc.assert(
      fc.property(valueText, valueText, (a, b) => {
        const expected = naiveCompare(naiveOf(a), naiveOf(b));
        const [x, y] = [readValue(a), readValue(b)];
        expect(sign(compareValues(x, y))).toBe(expected);
        expect(inOrder(encodeExactly(x), encodeExactly(y))).toBe(expected);
        expect(inOrder(invertOrder(encodeExactly(x)), invertOrder(encodeExactly(y))) + 0).toBe(-expected + 0);
      }),
      { numRuns: RUNS },
    );
  });

  it('puts absence before all values', () => {
    fc.assert(
      fc.property(valueText, (text) => {
        expect(encodeKeyPart(undefined) < encodeKeyPart(readValue(text))).toBe(true);
      }),
    );
  });

  it('never makes one key a prefix of another', () => {
    fc.assert(
      fc.property(valueText, valueText, (a, b) => {
        const [x, y] = [encodeKeyPart(readValue(a)), encodeKeyPart(readValue(b))];
        expect(x === y || !y.startsWith(x)).toBe(true);
      }),
    );
  });

  it("keeps equality of values that are too long for a key, and their order within the key's length", () => {
    const long = (end: string) => encodeKeyPart('x'.repeat(600) + end);
    expect(long('a')).not.toBe(long('b'));
    expect(long('a')).toBe(long('a'));
    expect(long('a') > encodeKeyPart('x'.repeat(500))).toBe(true);
    expect(long('a') < encodeKeyPart('y')).toBe(true);
    expect(long('a').length).toBeLessThan(600);
  });
});

describe('a value', () => {
  it('is the same after it was written and read', () => {
    fc.assert(
      fc.property(valueText, (text) => {
        const value = readValue(text);
        expect(sign(compareValues(readValue(writeValue(value)), value))).toBe(0);
      }),
      { numRuns: RUNS },
    );
  });

  it('is parsed from any spelling of its text', () => {
    expect(
      readValue('{"\\u005fid" : "\\n\\"x", "n":[1e2,-0.5 , 12345678901234567890,true,null,{},[]]}'),
    ).toEqual({
      _id: '\n"x',
      n: [100, -0.5, expect.anything(), true, null, {}, []],
    });
  });
});
