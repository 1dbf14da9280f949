import { expect, it } from 'vitest';
import { freePort } from './free-port.ts';

it('each call gives a different port, and concurrent test files get ports from separate ranges', async () => {
  const slot = process.env['VITEST_POOL_ID'];
  const portsOf = (pool: number) => {
    process.env['VITEST_POOL_ID'] = String(pool);
    return Promise.all(Array.from({ length: 300 }, freePort));
  };
  try {
    const [ours, others] = [await portsOf(3), await portsOf(4)];
    expect(new Set([...ours, ...others]).size).toBe(600);
    expect(Math.max(...ours)).toBeLessThan(Math.min(...others));
  } finally {
    process.env['VITEST_POOL_ID'] = slot;
  }
});
