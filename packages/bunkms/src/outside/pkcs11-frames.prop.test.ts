import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FrameReader, frameOf } from './pkcs11-frames.ts';

it('reads what was written, however a pipe cuts it, and wipes what it has read', () => {
  const cuts = fc.array(fc.nat(400), { maxLength: 10 });
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 5 }), cuts, (values, places) => {
      const all = Buffer.concat(values.map((bytes, id) => frameOf({ id, bytes })));
      const reader = new FrameReader();
      const read: unknown[] = [];
      const ends = [...places.filter((at) => at < all.length).sort((a, b) => a - b), all.length];
      let at = 0;
      for (const end of ends) {
        const chunk = Buffer.from(all.subarray(at, end));
        read.push(...reader.read(chunk));
        expect(chunk.every((byte) => byte === 0)).toBe(true);
        at = end;
      }
      expect(read).toEqual(values.map((bytes, id) => ({ id, bytes })));
    }),
  );
});

it('refuses bytes that are no frame', () => {
  for (const bytes of [
    Buffer.from('a module logs here\n'),
    Buffer.concat([Buffer.of(0, 0, 0, 4), Buffer.from('log\n')]),
  ])
    expect(() => new FrameReader().read(bytes)).toThrow();
  expect(new FrameReader().read(frameOf(randomBytes(8)).subarray(0, 6))).toEqual([]);
});
