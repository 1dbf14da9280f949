import { closeSync, openSync } from 'node:fs';
import { expect, it } from 'vitest';
import { descriptorLimit } from './descriptor-limit.ts';

const limitsWith = (soft: string) =>
  `Limit                     Soft Limit           Hard Limit           Units     \nMax open files            ${soft}                524288               files     \n`;

it('is the soft limit of the process', () => {
  expect(descriptorLimit(() => limitsWith('4096'))).toBe(4_096);
  expect(descriptorLimit(() => limitsWith('unlimited'))).toBe(Number.POSITIVE_INFINITY);
});

it('is assumed to be small where the system does not say', () => {
  const missing = () => {
    throw new Error('ENOENT');
  };
  for (const read of [missing, () => '', () => limitsWith('many')]) expect(descriptorLimit(read)).toBe(1_024);
});

it('exceeds the descriptors that are open', () => {
  const descriptor = openSync('/dev/null', 'r');
  expect(descriptorLimit()).toBeGreaterThan(descriptor);
  closeSync(descriptor);
});
