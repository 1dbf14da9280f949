import { expect, it } from 'vitest';
import { requestsMax, workingMemoryBytes } from './working-memory.ts';

const MIB = 1_048_576;

it('as many requests of several subjects run as their largest pages fit into the working memory', () => {
  for (const [memoryMib, requests] of [
    [512, 16],
    [1_536, 24],
    [8_192, 32],
  ] as const)
    expect(requestsMax(workingMemoryBytes(memoryMib * MIB, MIB))).toBe(requests);
});

it('the working memory is a quarter of the memory, up to 512 MiB, and more for large documents', () => {
  expect(workingMemoryBytes(1_536 * MIB, MIB)).toBe(384 * MIB);
  expect(workingMemoryBytes(64_000 * MIB, MIB)).toBe(512 * MIB);
  // One project, which has an eighth, has room for the largest page.
  expect(workingMemoryBytes(512 * MIB, 15 * MIB) / 8).toBeGreaterThan((16 + 2 * 15) * MIB);
});
