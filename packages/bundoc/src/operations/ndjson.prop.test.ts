import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LINE_BYTES_MAX, type Line, linesOf } from './ndjson.ts';

async function* pieces(bytes: Buffer, cuts: readonly number[]): AsyncGenerator<Buffer> {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  for (const [index, from] of [0, ...at].entries()) yield bytes.subarray(from, at[index] ?? bytes.length);
}

async function collect(
  source: AsyncIterable<Uint8Array>,
  start?: Pick<Line, 'number' | 'end'>,
): Promise<Line[]> {
  const lines: Line[] = [];
  for await (const line of linesOf(source, start)) lines.push(line);
  return lines;
}

describe('the lines of a source', () => {
  it('are the same however the source is split, each with the offset after it', async () => {
    const text = fc.string({ unit: 'binary' }).map((one) => one.toWellFormed().replaceAll('\n', ' '));
    await fc.assert(
      fc.asyncProperty(fc.array(text), fc.boolean(), fc.array(fc.nat()), async (texts, ends, cuts) => {
        const bytes = Buffer.from(texts.join('\n') + (ends ? '\n' : ''));
        const lines = await collect(pieces(bytes, cuts));
        const expected = texts.flatMap((one, at) => (one.trim() === '' ? [] : [[one, at + 1]]));
        expect(lines.map((line) => [line.text.replace(/^\uFEFF/, ''), line.number])).toEqual(
          expected.map(([one, number]) => [String(one).replace(/^\uFEFF/, ''), number]),
        );
        // A reader that resumes after any line gets the others.
        for (const { end, number } of lines) {
          const rest = await collect(pieces(bytes.subarray(end), cuts), { number, end });
          expect(rest).toEqual(lines.filter((line) => line.number > number));
        }
      }),
    );
  });

  it('are refused by number when they are not UTF-8 or longer than any document', async () => {
    await expect(collect(pieces(Buffer.from('{}\n\xff\n', 'latin1'), []))).rejects.toThrow(
      'line 2 is not UTF-8',
    );
    async function* endless() {
      yield Buffer.from('{}\n');
      for (let bytes = 0; bytes <= 2 * LINE_BYTES_MAX; bytes += 1_048_576) yield Buffer.alloc(1_048_576, 'x');
    }
    await expect(collect(endless())).rejects.toThrow('line 2 is longer than any document');
  });
});
