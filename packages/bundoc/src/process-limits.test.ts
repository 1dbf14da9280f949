import { gateBytes } from '@bundoc/shared/admission/gate';
import { expect, it } from 'vitest';
import { defaultCacheBytes, defaultOpenBytes, MEMORY_MIN, warnOfLittleMemory } from './process-limits.ts';

const MIB = 1_048_576;
/**
 * What the process takes besides: Node, the code, connections, the thread for large documents, pages in the
 * making, answers that wait for room, extra room for bodies, documents that wait for their files, and garbage
 * between two collections.
 */
const OWN_BYTES = 288 * MIB;

it('the defaults of all shares of memory leave room for the process itself, from the smallest memory on', () => {
  for (let limit = MEMORY_MIN; limit <= 64_000 * MIB; limit += 64 * MIB) {
    const held =
      // Those of streams, and the others, which other subjects take beyond.
      2.25 * gateBytes(limit) + defaultCacheBytes(limit) + defaultOpenBytes(limit, Number.POSITIVE_INFINITY);
    expect(held + OWN_BYTES, `with ${limit / MIB} MiB`).toBeLessThanOrEqual(limit);
  }
});

it('every share of memory gets more with more memory, up to a limit', () => {
  const mib = (bytes: number) => bytes / MIB;
  const gate = [256, 512, 768, 1_024, 2_048, 8_192].map((limit) => mib(gateBytes(limit * MIB)));
  expect(gate).toEqual([64, 64, 96, 128, 128, 128]);
  const cache = [256, 512, 2_048, 8_192].map((limit) => mib(defaultCacheBytes(limit * MIB)));
  expect(cache).toEqual([16, 32, 224, 256]);
  const open = [256, 512, 2_048, 8_192].map((limit) => mib(defaultOpenBytes(limit * MIB, 2_048 * MIB)));
  expect(open).toEqual([16, 64, 448, 1_024]);
});

it('a process with less memory than that logs a warning, and no other does', () => {
  const logged: unknown[] = [];
  const logger = { warn: (...line: unknown[]) => void logged.push(line) };
  warnOfLittleMemory(logger, MEMORY_MIN);
  expect(logged).toEqual([]);
  warnOfLittleMemory(logger, MEMORY_MIN - 1);
  expect(logged).toEqual([[{ bytes: MEMORY_MIN - 1 }, expect.stringContaining('below 1 GiB')]]);
});
