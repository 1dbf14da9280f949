import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ElementSplitter, splitInTurns } from '../src/parts/json-elements.ts';

/** White space between the tokens of JSON. */
const space = fc.stringMatching(/^[ \t\r\n]{0,2}$/);
const valueText = fc
  .tuple(fc.json({ maxDepth: 3 }), space, space)
  .map(([text, before, behind]) => ({ text, padded: `${before}${text}${behind}` }));

/** The text in arbitrary pieces. */
function piecesOf(text: string, sizes: readonly number[]): string[] {
  const pieces: string[] = [];
  for (let at = 0, n = 0; at < text.length; n++) {
    const size = sizes[n % sizes.length] ?? 1;
    pieces.push(text.slice(at, at + size));
    at += size;
  }
  return pieces;
}

const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 });

it('finds the exact text of each element of an array, wherever the pieces end', () => {
  fc.assert(
    fc.property(fc.array(valueText, { maxLength: 6 }), sizes, fc.json(), (values, cuts, other) => {
      const array = `[${values.map(({ padded }) => padded).join(',')}]`;
      const texts = values.map(({ text }) => text);
      const alone = new ElementSplitter(0);
      expect(piecesOf(array, cuts).flatMap((piece) => alone.push(piece))).toEqual(texts);
      expect([alone.isComplete, alone.outside]).toEqual([true, '[]']);
      const within = new ElementSplitter(1);
      const answer = `{"documents":${array},"other":${other}}`;
      expect(piecesOf(answer, cuts).flatMap((piece) => within.push(piece))).toEqual(texts);
      expect(within.outside).toBe(`{"documents":[],"other":${other}}`);
    }),
  );
});

it('keeps only the wanted length of each element, and returns the other members of the answer', async () => {
  const text = `{"documents":[{"v":"${'x'.repeat(2_000_000)}"},{"w":1}],"next_cursor":"n"}`;
  expect(await splitInTurns(text, 10, new AbortController().signal)).toEqual({
    elements: ['{"v":"xxxx', '{"w":1}'],
    rest: { documents: [], next_cursor: 'n' },
  });
});

it.each([
  ['[1,]', ['1', '']],
  ['[,1]', ['', '1']],
  ['[ ]', []],
])('returns a missing element in %s as an empty text', (text, elements) => {
  expect(new ElementSplitter(0).push(text)).toEqual(elements);
});

it('stops when its caller aborts', async () => {
  const gone = new AbortController();
  gone.abort(new Error('gone'));
  await expect(splitInTurns('{"a":[]}', 10, gone.signal)).rejects.toThrow('gone');
});
