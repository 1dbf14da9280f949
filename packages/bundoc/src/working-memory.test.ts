import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { COMMIT_BYTES_MAX } from './engine/port.ts';
import { requestsMax, workingMemory, workingMemoryBytes } from './working-memory.ts';

const MIB = 1_048_576;

it('as many requests of several subjects run as their largest pages fit into the working memory', () => {
  for (const [memoryMib, requests] of [
    [512, 8],
    [1_536, 24],
    [8_192, 32],
  ] as const)
    expect(requestsMax(workingMemoryBytes(memoryMib * MIB, MIB))).toBe(requests);
});

it('the working memory is a quarter of the memory, up to 512 MiB, and more for large documents', () => {
  expect(workingMemoryBytes(512 * MIB, MIB)).toBe(128 * MIB);
  expect(workingMemoryBytes(1_536 * MIB, MIB)).toBe(384 * MIB);
  expect(workingMemoryBytes(64_000 * MIB, MIB)).toBe(512 * MIB);
});

it.each([1, 15])(
  'one project has room for the largest page, or the largest commit, of documents of %s MiB',
  (documentMib) => {
    for (const memoryMib of [512, 2_048, 8_192]) {
      const memory = workingMemory(memoryMib * MIB, documentMib * MIB, new FakeClock());
      const key = { subject: 's', project: 'p' };
      for (const largest of [(16 + 2 * documentMib) * MIB, COMMIT_BYTES_MAX]) {
        using most = memory.tryTake(key, largest - 1);
        using rest = memory.tryTake(key, 1);
        expect([most, rest]).not.toContain(undefined);
      }
    }
  },
);
