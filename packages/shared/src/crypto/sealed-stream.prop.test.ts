import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { aadOf, OpenError, open, takeKey } from './aead.ts';
import { LENGTH_BYTES, SealedStream } from './sealed-stream.ts';

const key = takeKey(randomBytes(32));
const chunks = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 6 });

function sealAll(plaintexts: readonly Uint8Array[], ...context: readonly string[]): Buffer[] {
  const stream = new SealedStream(key, ...context);
  return plaintexts.map((plaintext, at) => stream.seal(plaintext, at === plaintexts.length - 1));
}

/** Opens chunk by chunk up to the end of the bytes, as the formats' readers do. */
function openAll(bytes: Buffer, ...context: readonly string[]): Buffer[] {
  const stream = new SealedStream(key, ...context);
  const opened: Buffer[] = [];
  for (let at = 0, end = -1; end !== bytes.length; at = end) {
    if (at + LENGTH_BYTES > bytes.length) throw new OpenError();
    end = at + LENGTH_BYTES + bytes.readUInt32BE(at);
    if (end > bytes.length) throw new OpenError();
    opened.push(stream.open(bytes.subarray(at + LENGTH_BYTES, end), end === bytes.length));
  }
  return opened;
}

describe('a sealed stream', () => {
  it('returns the chunks that were sealed', () => {
    fc.assert(
      fc.property(chunks, (plaintexts) => {
        const opened = openAll(Buffer.concat(sealAll(plaintexts, 'format', 'id')), 'format', 'id');
        expect(opened).toEqual(plaintexts.map((plaintext) => Buffer.from(plaintext)));
      }),
    );
  });

  it('binds each chunk to its stream, its number and whether it is the last, as the formats specify', () => {
    const [first, last] = sealAll([Buffer.from('a'), Buffer.from('b')], 'bundoc/x/v1', 'p') as [
      Buffer,
      Buffer,
    ];
    const sealedIn = (chunk: Buffer) => chunk.subarray(LENGTH_BYTES);
    expect(first.readUInt32BE()).toBe(first.length - LENGTH_BYTES);
    expect(open(key, sealedIn(first), aadOf('bundoc/x/v1', 'p', '0', 'more')).toString()).toBe('a');
    expect(open(key, sealedIn(last), aadOf('bundoc/x/v1', 'p', '1', 'last')).toString()).toBe('b');
  });

  it('does not open when it is truncated or extended, or a chunk is moved, repeated, dropped or from another stream', () => {
    fc.assert(
      fc.property(chunks, fc.nat(), (plaintexts, pick) => {
        const sealed = sealAll(plaintexts, 'format', 'id');
        const [foreign] = sealAll([plaintexts[0] as Uint8Array, Buffer.alloc(0)], 'format', 'other');
        const whole = Buffer.concat(sealed);
        const at = pick % sealed.length;
        const changed = [
          whole.subarray(0, pick % whole.length),
          Buffer.concat([whole, Buffer.alloc(1 + (pick % 64))]),
          Buffer.concat(sealed.toSpliced(at, 1)),
          Buffer.concat(sealed.toSpliced(at, 0, sealed[at] as Buffer)),
          Buffer.concat(sealed.with(0, foreign as Buffer)),
          ...(sealed.length > 1 ? [Buffer.concat(sealed.toReversed())] : []),
        ];
        for (const bytes of changed) expect(() => openAll(bytes, 'format', 'id')).toThrow(OpenError);
      }),
    );
  });
});
