import { randomBytes } from 'node:crypto';
import { OpenError, takeKey } from '@bundoc/shared/crypto/aead';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type OutsideKey, OutsideKeyError } from '../outside/port.ts';
import { openThroughSlots, RingSealed } from './open-ring.ts';
import { isSealedRing, openSealedRing, parseSealedRing, type SealedRing, sealRing } from './sealed-ring.ts';

const newKek = () => takeKey(randomBytes(32));
/** As wrapped by outside keys that keep what they wrap. */
const wrapped = new Map<string, Buffer>();
const wrap = async (name: string, ringKey: Buffer) => {
  const blob = randomBytes(64);
  wrapped.set(`${name} ${blob.toString('hex')}`, Buffer.from(ringKey));
  return blob;
};
const unwrap = (name: string, blob: Uint8Array) => {
  const ringKey = wrapped.get(`${name} ${Buffer.from(blob).toString('hex')}`);
  if (ringKey === undefined) throw new OutsideKeyError('damaged', 'it was not wrapped here');
  return Buffer.from(ringKey);
};
const keyNamed = (name: string, fault?: 'denied' | 'unavailable'): OutsideKey => ({
  name,
  kind: 'test',
  identity: '',
  wrap: (secret) => wrap(name, Buffer.from(secret)),
  unwrap: async (blob) => {
    if (fault !== undefined) throw new OutsideKeyError(fault, 'as the test says');
    return unwrap(name, blob);
  },
  check: async () => undefined,
});
const bytesOf = (keks: readonly { export(): Buffer }[]) => keks.map((kek) => kek.export().toString('hex'));
const parsed = (bytes: Buffer) => parseSealedRing(bytes) as SealedRing;

describe('a sealed ring', () => {
  it('opens by each of its slots alone, to the same KEKs in their order', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 4 }),
        async (keks, slots) => {
          const ring = Array.from({ length: keks }, newKek);
          const names = Array.from({ length: slots }, (_, slot) => `key-${slot}`);
          const bytes = await sealRing(ring, names, wrap);
          expect(isSealedRing(bytes)).toBe(true);
          for (const name of names) {
            const find = async (one: string) => (one === name ? keyNamed(one) : undefined);
            const opened = await openThroughSlots(bytes, find);
            expect(opened.slot).toBe(name);
            expect(bytesOf(opened.keks)).toEqual(bytesOf(ring));
          }
        },
      ),
      { numRuns: 30 },
    ));

  it('does not open when any bit of it is changed, cut or added', async () => {
    const bytes = await sealRing([newKek(), newKek()], ['one', 'two'], wrap);
    const opens = async (changed: Buffer) =>
      await openThroughSlots(changed, async (name) => keyNamed(name)).then(
        () => true,
        () => false,
      );
    expect(await opens(bytes)).toBe(true);
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length * 8 - 1), async (bit) => {
        const changed = Buffer.from(bytes);
        changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
        expect(await opens(changed)).toBe(false);
      }),
      { numRuns: 500 },
    );
    for (let length = 0; length < bytes.length; length += 7)
      expect(await opens(bytes.subarray(0, length))).toBe(false);
    expect(await opens(Buffer.concat([bytes, Buffer.alloc(32)]))).toBe(false);
  });

  it('never parses to more than the bounds of its format, whatever the bytes', () =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (tail) => {
        const ring = parseSealedRing(Buffer.concat([Buffer.from('BUNKMSR1'), tail]));
        if (ring !== undefined) expect(ring.slots.length).toBeLessThanOrEqual(4);
      }),
    ));

  it('has no slot whose name a terminal or a log could take for something else', async () => {
    const bytes = await sealRing([newKek()], ['abc'], wrap);
    const at = bytes.indexOf('abc');
    for (const [name, isOne] of [
      ['a-2', true],
      ['Abc', false],
      ['a\nc', false],
      ['\x1b[m', false],
      ['a/c', false],
    ] as const) {
      bytes.write(name, at, 'latin1');
      expect(parseSealedRing(bytes) !== undefined).toBe(isOne);
    }
  });

  it('refuses the ring key of another ring, and wipes the one that it gets', async () => {
    const [one, two] = [await sealRing([newKek()], ['a'], wrap), await sealRing([newKek()], ['a'], wrap)];
    const ringKey = unwrap('a', parsed(two).slots[0]?.blob ?? Buffer.alloc(0));
    expect(() => openSealedRing(parsed(one), ringKey)).toThrow(OpenError);
    expect(ringKey.equals(Buffer.alloc(32))).toBe(true);
    const longer = randomBytes(33);
    expect(() => openSealedRing(parsed(one), longer)).toThrow(OpenError);
    expect(longer.equals(Buffer.alloc(33))).toBe(true);
  });

  it('names each slot and why it does not open, and asks no offline one', async () => {
    const bytes = await sealRing([newKek()], ['away', 'forbidden', 'offline'], wrap);
    const find = async (name: string) => {
      if (name === 'offline') return undefined;
      return keyNamed(name, name === 'away' ? 'unavailable' : 'denied');
    };
    const error: unknown = await openThroughSlots(bytes, find).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RingSealed);
    const { slots, publicMessage } = error as RingSealed;
    expect(slots.map(({ name, state }) => [name, state])).toEqual([
      ['away', 'unavailable'],
      ['forbidden', 'denied'],
      ['offline', 'offline'],
    ]);
    expect(publicMessage).toBe(
      'no slot opens the sealed ring: away is unavailable, forbidden is denied, offline is offline',
    );
  });

  it('seals each time under another ring key, and shows no KEK', async () => {
    const kek = newKek();
    const [one, two] = [await sealRing([kek], ['a'], wrap), await sealRing([kek], ['a'], wrap)];
    expect(one.includes(kek.export())).toBe(false);
    expect(parsed(one).id.equals(parsed(two).id)).toBe(false);
    expect(one).not.toEqual(two);
  });
});
