import { randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { combine, split } from 'shamir-secret-sharing';
import { describe, expect, it } from 'vitest';
import { DamagedShare, UnfitShares } from '../src/recovery/errors.ts';
import {
  combineShares,
  type KekShare,
  type NamedShare,
  readShare,
  SHARES_MAX,
  splitRing,
} from '../src/recovery/kek-shares.ts';
import { writeShareText } from '../src/recovery/share-text.ts';
import { parseKekRing } from '../src/vault/kek-provider.ts';
import { joined, sharesOf, times } from './support/gf256.ts';
import { golden, hex } from './support/golden-files.ts';

const CURRENT = '0123456789abcdef';
const ringOf = (count: number) =>
  parseKekRing('test', Array.from({ length: count }, () => randomBytes(32).toString('hex')).join('\n'));
const bytesOf = (keks: readonly { export(): Buffer }[]) => keks.map((kek) => kek.export().toString('hex'));
const named = (shares: readonly KekShare[]): NamedShare[] =>
  shares.map((share) => ({ name: `share-${share.index}`, share }));
/** A share as a reader has it, of bytes that anybody may have written. */
const written = (bytes: Buffer) => readShare('forged', writeShareText(bytes, []));
const kinds = fc.integer({ min: 2, max: SHARES_MAX }).chain((shares) =>
  fc.record({
    shares: fc.constant(shares),
    threshold: fc.integer({ min: 2, max: shares }),
    keks: fc.integer({ min: 1, max: 8 }),
    order: fc.shuffledSubarray(
      Array.from({ length: shares }, (_, at) => at),
      { minLength: shares },
    ),
  }),
);

describe('shares of the KEKs', () => {
  it('give the ring from any that are enough, in any order and through their text, and none from fewer', () =>
    fc.assert(
      fc.asyncProperty(kinds, async ({ shares, threshold, keks, order }) => {
        const ring = ringOf(keks);
        const all = await splitRing(ring, { shares, threshold, current: CURRENT });
        const read = all.map((share) =>
          readShare('a share', writeShareText(share.bytes, ['a remark', 'KEK SHARE'])),
        );
        expect(read).toEqual(all);
        const some = order.map((at) => read[at] as KekShare);
        for (let count = threshold; count <= shares; count++)
          expect(bytesOf(await combineShares(named(some.slice(0, count))))).toEqual(bytesOf(ring));
        const few = some.slice(0, threshold - 1);
        await expect(combineShares(named(few))).rejects.toThrow(UnfitShares);
        expect(joined(few.map(({ points }) => points)).toString()).not.toBe(
          joined(some.map(({ points }) => points)).toString(),
        );
      }),
      { numRuns: 60 },
    ));

  it('do not give another ring when fields are forged with valid checksums: the check value covers each', async () => {
    const shares = await splitRing(ringOf(2), { shares: 5, threshold: 3, current: CURRENT });
    const [a, b, c] = shares as [KekShare, KekShare, KekShare];
    // A lower threshold would let fewer shares give something that looks like a ring.
    const lowered = [a, b].map(({ bytes }) => written(changedAt(bytes, 10, 3 ^ 2)));
    await expect(combineShares(named(lowered))).rejects.toThrow('the check value is wrong');
    for (const at of c.bytes.keys()) {
      // What all have in common is forged in all.
      const isCommon = at < 20 && at !== 8;
      const attempt = async () => {
        const [x, y, z] = [a, b, c].map(({ bytes }) => written(changedAt(bytes, at, 4)));
        return await combineShares(named([isCommon ? x : a, isCommon ? y : b, z] as KekShare[]));
      };
      await expect(attempt(), `byte ${at}`).rejects.toThrow();
    }
  });

  it('name the one that was changed when there are more than needed, and otherwise ask for another', async () => {
    const ring = ringOf(1);
    const shares = await splitRing(ring, { shares: 4, threshold: 2, current: CURRENT });
    const given = named(shares);
    const forged = { name: 'share-3', share: written(changedAt((shares[2] as KekShare).bytes, 30, 1)) };
    await expect(combineShares(given.with(2, forged))).rejects.toThrow(
      'share-3 was changed: the other shares give the KEKs without it',
    );
    await expect(combineShares([given[0] as NamedShare, forged])).rejects.toThrow(DamagedShare);
    await expect(combineShares([given[0] as NamedShare, forged])).rejects.toThrow(
      'one of these shares was changed',
    );
    expect(bytesOf(await combineShares(given.toSpliced(2, 1)))).toEqual(bytesOf(ring));
  });

  it('are refused with a share of another split, or twice', async () => {
    const [one, two] = [
      named(await splitRing(ringOf(1), { shares: 3, threshold: 2, current: CURRENT })),
      named(await splitRing(ringOf(1), { shares: 3, threshold: 2, current: CURRENT })),
    ];
    await expect(combineShares([one[0] as NamedShare, two[1] as NamedShare])).rejects.toThrow(
      /share-2 is of another split than share-1: split [0-9a-f]{16}, 2 of 3, 1 with the current KEK/,
    );
    const copy = { ...(one[0] as NamedShare), name: 'copy' };
    await expect(combineShares([one[0] as NamedShare, copy])).rejects.toThrow(
      'copy is the same share as share-1',
    );
    await expect(combineShares([one[2] as NamedShare])).rejects.toThrow(
      'give 1 more: 2 of the 3 shares are needed',
    );
  });

  it('hold no share at zero, which would be the secret itself', async () => {
    const [share] = await splitRing(ringOf(1), { shares: 2, threshold: 2, current: CURRENT });
    const { bytes, points } = share as KekShare;
    const place = 20 + points.length - 1;
    expect(() => written(changedAt(bytes, place, bytes[place] ?? 0))).toThrow('no share that BunKMS makes');
  });
});

describe('the library for shares', () => {
  it('agrees with an implementation without tables, in both directions', () =>
    fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 80 }),
        fc.uniqueArray(fc.integer({ min: 1, max: 255 }), { minLength: 2, maxLength: 9 }),
        async (secret, xs) => {
          const threshold = Math.max(2, xs.length - 2);
          const theirs = await split(Uint8Array.from(secret), xs.length, threshold);
          expect(joined(theirs.slice(-threshold))).toEqual(Buffer.from(secret));
          const ours = sharesOf(secret, xs, () => [...randomBytes(threshold - 1)]);
          expect(Buffer.from(await combine(ours.slice(0, threshold)))).toEqual(Buffer.from(secret));
        },
      ),
      { numRuns: 200 },
    ));

  it('takes new random coefficients for each byte, and no place twice', async () => {
    const [one, two] = [await split(new Uint8Array(64), 16, 2), await split(new Uint8Array(64), 16, 2)];
    for (const shares of [one, two]) expect(new Set(shares.map((share) => share.at(-1))).size).toBe(16);
    // At the place x, the share of a zero byte is its coefficient times x.
    expect(new Set(one[0]?.subarray(0, 64)).size).toBeGreaterThan(32);
    expect(Buffer.from(one[0] ?? [])).not.toEqual(Buffer.from(two[0] ?? []));
  });

  it('multiplies as FIPS 197 says, section 4.2', () => {
    expect(times(0x57, 0x83)).toBe(0xc1);
    expect(times(0x57, 0x13)).toBe(0xfe);
  });
});

describe('the text of a share', () => {
  const file = golden('kek-shares') as { shares: string[] };
  const text = String(file.shares[1]);
  /** The line of a place, counted from one. */
  const lineAt = (at: number) => text.slice(0, at).split('\n').length;
  const begin = text.indexOf('01  ');
  const places = [...text.split('').keys()].filter((at) => !isRemark(text, at));

  it('is refused when any character is mistyped, and the line is named', () => {
    expect(places.length).toBeGreaterThan(300);
    for (const at of places)
      for (const other of 'ABCDEFGHIJKLMNOPQRSTUVWXYZ2345670189#-') {
        if (other === text[at]) continue;
        const changed = text.slice(0, at) + other + text.slice(at + 1);
        const fault = faultOf(changed);
        expect(fault, `${other} at ${at}`).toBeInstanceOf(DamagedShare);
        // Of a line that became a remark, or was joined with the next one, the line after it is missed.
        const line = lineAt(at);
        const lines = text[at] === '\n' || other === '#' ? [line, line === 1 ? 3 : line + 1] : [line];
        expect(lines, `${other} at ${at}: ${fault?.message}`).toContain(lineOf(fault));
      }
  });

  it('is refused when a character is lost or two are swapped, unless that is a space', () => {
    for (const at of places) {
      const isEnd = at === text.length - 1;
      if (text[at] === ' ' || isEnd) continue;
      expect(faultOf(text.slice(0, at) + text.slice(at + 1)), `without ${at}`).toBeInstanceOf(DamagedShare);
      const swapped = text.slice(0, at) + text[at + 1] + text[at] + text.slice(at + 2);
      if (/\s/.test(String(text[at + 1])) || text[at] === text[at + 1] || text[at] === '\n') continue;
      expect(faultOf(swapped), `swapped at ${at}`).toBeInstanceOf(DamagedShare);
    }
  });

  it('is refused with lines of another share of the same split, in another order, fewer or more', () => {
    const [tag = '', remark = '', ...lines] = text.trim().split('\n');
    const other = String(file.shares[2]).trim().split('\n').slice(2);
    const refused = (changed: readonly string[], message: RegExp) => {
      const fault = faultOf([tag, remark, ...changed].join('\n'));
      expect(fault).toBeInstanceOf(DamagedShare);
      expect(fault?.message).toMatch(message);
    };
    for (const at of lines.keys())
      refused(
        lines.with(at, String(other[at])),
        at === 0 ? /line 4: the line 02/ : new RegExp(`the line 0${at + 1} `),
      );
    refused(lines.with(2, String(lines[3])).with(3, String(lines[2])), /line 5: the line 03 of the share is/);
    refused(lines.slice(0, -1), /it ends before the line 09 of the share/);
    refused([], /it ends before the line 01/);
    refused([...lines, String(lines.at(-1))], /line 12: nothing may follow the line 09/);
    expect(faultOf('')?.message).toBe('the file, line 1: a KEK share begins with "BUNKMS KEK SHARE 1"');
    expect(faultOf(text.replace('SHARE 1', 'SHARE 2'))?.message).toContain('line 1: a KEK share begins');
  });

  it('is read in lower case, with other spaces, ends of lines and remarks, or none', () => {
    const share = readShare('a', text);
    for (const typed of [
      text.toLowerCase(),
      text.replaceAll('\n', '\r\n'),
      `\uFEFF\n\n${text.replaceAll('\n', '\n\n').replaceAll(' ', '\t ')}  # the end`,
      text.slice(0, text.indexOf('#')) + text.slice(begin).replaceAll(' ', ''),
      text.trimEnd(),
    ])
      expect(readShare('a', typed)).toEqual(share);
  });

  it('never gives anything but a share or a refusal, whatever it is', () =>
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', maxLength: 60 }),
        fc.nat(text.length),
        fc.nat(40),
        (other, at, length) => {
          const changed = text.slice(0, at) + other + text.slice(at + length);
          try {
            expect(readShare('the file', changed).bytes).toEqual(readShare('the file', text).bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(DamagedShare);
          }
        },
      ),
      { numRuns: 2_000 },
    ));

  it('of another maker is refused when its fields are out of bounds', () => {
    const { bytes } = readShare('a', text);
    for (const numbers of [
      '00050302',
      '06050302',
      '01110302',
      '01050102',
      '01050602',
      '01050300',
      '01050309',
    ]) {
      const forged = Buffer.concat([bytes.subarray(0, 8), hex(numbers), bytes.subarray(12)]);
      expect(() => written(forged), numbers).toThrow('this is no share that BunKMS makes');
    }
  });
});

function changedAt(bytes: Buffer, at: number, mask: number): Buffer {
  const changed = Buffer.from(bytes);
  changed[at] = (changed[at] ?? 0) ^ mask;
  return changed;
}

function isRemark(text: string, at: number): boolean {
  const line = text.slice(text.lastIndexOf('\n', at - 1) + 1);
  return line.startsWith('#');
}

function faultOf(text: string): Error | undefined {
  try {
    readShare('the file', text);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** The line that an error names, or the last one when the file ends too early. */
function lineOf(fault: Error | undefined): number {
  const [, line] = /line (\d+)[:,]/.exec(String(fault?.message)) ?? [];
  return line === undefined ? 12 : Number(line);
}
