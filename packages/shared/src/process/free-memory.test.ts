import { createCipheriv, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { freeMemory } from './free-memory.ts';

describe('freeing the memory of a buffer', () => {
  it.each([
    ['allocated', () => Buffer.allocUnsafeSlow(65_536)],
    ['joined', () => Buffer.concat([Buffer.alloc(65_536), Buffer.alloc(1)])],
    [
      'made by a cipher',
      () => createCipheriv('aes-256-gcm', randomBytes(32), randomBytes(12)).update(Buffer.alloc(70_000)),
    ],
  ])('empties a large buffer that was %s', (_how, make) => {
    const bytes = make();
    freeMemory(bytes);
    expect(bytes.length).toBe(0);
    expect(bytes.buffer.byteLength).toBe(0);
  });

  it('returns the memory without a garbage collection', () => {
    const before = process.memoryUsage().arrayBuffers;
    for (let n = 0; n < 64; n++) freeMemory(Buffer.allocUnsafeSlow(16 * 1_048_576));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * 1_048_576);
  });

  it('does not change a buffer in shared memory, nor a small one', () => {
    const whole = Buffer.alloc(200_000, 1);
    freeMemory(whole.subarray(0, 100_000));
    const small = Buffer.alloc(10, 2);
    freeMemory(small);
    expect([whole.length, whole[5], small.length, small[5]]).toEqual([200_000, 1, 10, 2]);
  });
});
