import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GatheredBody } from './gathered-body.ts';

describe('a body that arrives', () => {
  it('consists of all its chunks in order, whatever length was announced', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 80_000 }), { maxLength: 12 });
    fc.assert(
      fc.property(sizes, fc.option(fc.integer({ min: 0, max: 1_000 })), (lengths, more) => {
        const chunks = lengths.map((length, n) => Buffer.alloc(length, n + 1));
        const expected = Buffer.concat(chunks);
        const body = new GatheredBody(more === null ? undefined : expected.length + more);
        for (const chunk of chunks) body.add(chunk);
        expect(body.take().equals(expected)).toBe(true);
      }),
    );
  });

  it('is copied chunk by chunk once a quarter has arrived, so that nothing is left to copy at its end', () => {
    const chunks = Array.from({ length: 16 }, (_, n) => Buffer.alloc(65_536, n + 1));
    const expected = Buffer.concat(chunks);
    const body = new GatheredBody(expected.length);
    for (const [n, chunk] of chunks.entries()) {
      body.add(chunk);
      if (n >= 3) for (const before of chunks.slice(0, n + 1)) before.fill(0);
    }
    const whole = body.take();
    expect(whole.equals(expected)).toBe(true);
    expect(body.take().buffer).toBe(whole.buffer);
  });

  it('gives its memory back when it is not taken', () => {
    const body = new GatheredBody(256_000_000);
    body.add(Buffer.allocUnsafe(64_000_000));
    const before = process.memoryUsage().arrayBuffers;
    body.discard();
    expect(before - process.memoryUsage().arrayBuffers).toBeGreaterThan(200_000_000);
  });
});
