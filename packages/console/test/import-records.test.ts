import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ImportRecord, recordsOf } from '../src/bundoc/import-records.ts';

const { signal } = new AbortController();

async function recordsIn(
  ...parts: (string | Uint8Array<ArrayBuffer>)[]
): Promise<readonly Pick<ImportRecord, 'text' | 'number'>[]> {
  const records: Pick<ImportRecord, 'text' | 'number'>[] = [];
  for await (const { text, number } of recordsOf(new Blob(parts), signal)) records.push({ text, number });
  return records;
}

describe('the records of a file', () => {
  it('have the exact texts of its documents, from lines and from an array', async () => {
    const documents = fc.array(fc.json(), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(documents, fc.constantFrom('\n', '\r\n'), async (texts, end) => {
        const expected = texts.map((text, at) => ({ text, number: at + 1 }));
        expect(await recordsIn(`[${texts.join(`,${end}`)}]${end}`)).toEqual(expected);
        // A first line that begins with a bracket makes the file an array.
        const lines = ['{}', ...texts];
        expect((await recordsIn(lines.join(end))).map(({ text }) => text)).toEqual(lines);
      }),
    );
  });

  it('are numbered by their lines, including empty ones', async () => {
    expect(await recordsIn('\n{"a":1}\n\n{"a":2}')).toEqual([
      { text: '{"a":1}', number: 2 },
      { text: '{"a":2}', number: 4 },
    ]);
  });

  it('are absent in an empty file and an empty array', async () => {
    expect([await recordsIn(''), await recordsIn(' \n'), await recordsIn('\ufeff[ ]')]).toEqual([[], [], []]);
  });

  it.each([
    ['[{"a":1}', 'ends within its array'],
    ['[{"a":1}] {"b":2}', 'Something follows the array'],
    ['[1][2]', 'Something follows the array'],
  ])('the records of a file of %j are refused at the end', async (text, message) => {
    await expect(recordsIn(text)).rejects.toThrow(message);
  });

  it('must be UTF-8', async () => {
    await expect(recordsIn('{"a":"', new Uint8Array([0xe9]), '"}')).rejects.toThrow(TypeError);
  });

  it('end with an error at a record longer than any document, before all of it is read', async () => {
    const long = 'x'.repeat(17_000_000);
    await expect(recordsIn(`{"a":1}\n"${long}`, long)).rejects.toThrow('Record 2 is longer');
  });
});
