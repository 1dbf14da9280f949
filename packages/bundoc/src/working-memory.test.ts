import { expect, it } from 'vitest';
import { requestsMax, workingMemoryBytes } from './working-memory.ts';

const MIB = 1_048_576;

it('as many requests of several subjects run as their largest pages fit into the working memory, within bounds', () => {
  for (const [memoryMib, requests] of [
    [1, 8],
    [256, 16],
    [512, 32],
    [8_192, 64],
  ] as const)
    expect(requestsMax(memoryMib * MIB)).toBe(requests);
});

it('the working memory is a quarter of the memory, up to 512 MiB, and more for large documents', () => {
  const documentBytes = 1 * MIB;
  expect(workingMemoryBytes(1_024 * MIB, documentBytes)).toBe(256 * MIB);
  expect(workingMemoryBytes(64_000 * MIB, documentBytes)).toBe(512 * MIB);
  // One project, which has an eighth, has room for the largest page.
  expect(workingMemoryBytes(512 * MIB, 15 * MIB) / 8).toBeGreaterThan((16 + 2 * 15) * MIB);
});
