import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { faultOf, faultOffset, placeAfter } from './place.ts';

const texts = fc
  .json()
  .chain((text) =>
    fc
      .tuple(fc.nat(text.length), fc.constantFrom('', ...'{}[]",:\\u01e+-.tn \n\t\u0001é'), fc.nat(2))
      .map(([at, char, cut]) => text.slice(0, at) + char + text.slice(at + cut)),
  );
/** The longest token that is wrong as a whole: V8 counts from its middle, this from its beginning. */
const TOKEN = 30;

describe('the place of a fault in JSON', () => {
  it('is where JSON.parse says, or the end of a text that ends too early', () => {
    let compared = 0;
    fc.assert(
      fc.property(texts, (text) => {
        const at = faultOffset(text) ?? Number.NaN;
        let message: string | undefined;
        try {
          JSON.parse(text);
        } catch (error) {
          ({ message } = error as Error);
        }
        if (message === undefined) expect(at).toBe(text.length);
        const [, position] = /at position (\d+)/.exec(message ?? '') ?? [];
        if (position === undefined) return;
        compared++;
        expect(at).toBeLessThanOrEqual(Number(position));
        expect(at).toBeGreaterThanOrEqual(Number(position) - TOKEN);
      }),
      { numRuns: 5_000 },
    );
    expect(compared).toBeGreaterThan(500);
  });

  it.each([
    ['{"a":1,}', 'line 1, column 8'],
    ['{\n  "a": 1\n  "b": 2\n}', 'line 3, column 3'],
    ['{\r\n  "a": secret}', 'line 2, column 8'],
    ['{"a":[1,2}', 'line 1, column 10'],
    ['{"a":"b\nc"}', 'line 1, column 8'],
    ['{"a":"\\x"}', 'line 1, column 7'],
    ['{"a":1', 'line 1, column 7'],
    ['{"é😀" 1}', 'line 1, column 8'],
    ['{} {}', 'line 1, column 4'],
  ])('in %j is %s', (text, place) => {
    expect(placeAfter(text.slice(0, faultOffset(text)))).toBe(place);
  });

  it.each([
    ['[-Infinity]', 'line 1, column 2: JSON has no NaN and no Infinity; write null or a string'],
    ['{"a":undefined}', 'line 1, column 6: JSON has no undefined; write null, or leave the member out'],
    ['[True]', 'line 1, column 2: JSON has true, false and null'],
    ['{a: 1}', 'line 1, column 2: names and strings need double quotes'],
    ['{"a":1,\n b: 1}', 'line 2, column 2: names and strings need double quotes'],
    ['[1, 2,\n]', 'line 2, column 1: no comma may follow the last item'],
    ['[1 // one\n]', 'line 1, column 4: JSON has no comments'],
    ['["a\tb"]', 'line 1, column 4: write \\n or \\t for a line break or a tab in a string'],
    ['[1', 'line 1, column 3: the text ends too early'],
    ['[NaNa]', 'line 1, column 2: names and strings need double quotes'],
    ['[secret]', 'line 1, column 2: names and strings need double quotes'],
    ['{bad}', 'line 1, column 2: names and strings need double quotes'],
    ['not json', 'line 1, column 1: names and strings need double quotes'],
    ['{"é": \né}', 'line 2, column 1: names and strings need double quotes'],
    ['{"a":1b}', 'line 1, column 7'],
    ['{"a":1}]', 'line 1, column 8'],
  ])('in %j comes with what JSON wants there, and no part of the text', (text, fault) => {
    expect(faultOf(text)).toBe(fault);
  });

  it('comes with what JSON wants in linear time', () => {
    expect(faultOf(`[1,${' '.repeat(1_000_000)}]`)).toMatch(/no comma may follow the last item$/);
    expect(faultOf(`[${'1,'.repeat(2_000_000)}x`)).toBe('after the first 1048576 characters');
  });

  it('is looked for in the first mebibyte only, in linear time', () => {
    expect(faultOffset(`[${'1,'.repeat(2_000_000)}x`)).toBeUndefined();
    expect(faultOffset(`["${'a'.repeat(1_000_000)}"x`)).toBe(1_000_003);
  });
});
