import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BATCH } from '../audit/ship/shipper.ts';
import { chainSink } from './chain-sink.ts';
import { lastRecord, linesFrom } from './read-chain.ts';

const ID = '0123abcd';

/** Objects that are listed by their names. */
function objectsInMemory(): ObjectStorage {
  const stored = new Map<string, Buffer>();
  return {
    name: 'memory',
    put: async (key, body) => void stored.set(key, Buffer.from(body)),
    get: async (key) => stored.get(key),
    async *list(prefix, after = '') {
      for (const key of [...stored.keys()].sort())
        if (key.startsWith(prefix) && key > after) yield { key, bytes: 0 };
    },
    delete: () => Promise.reject(new Error('nothing may be deleted')),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** The history of an epoch: from `fork` on it has records of its own. */
interface Epoch {
  readonly fork: number;
  readonly records: number;
  /** For each node that ships it, how far before the fork it begins, and its batches. */
  readonly nodes: readonly { readonly back: number; readonly batches: readonly number[] }[];
}

const node = fc.record({
  back: fc.nat(1_500),
  batches: fc.array(fc.integer({ min: 1, max: BATCH }), { minLength: 1, maxLength: 30 }),
});
const epoch: fc.Arbitrary<Epoch> = fc.record({
  fork: fc.integer({ min: 1, max: 1_500 }),
  records: fc.integer({ min: 1, max: 1_500 }),
  nodes: fc.array(node, { minLength: 1, maxLength: 3 }),
});

/** The hashes of each epoch: it shares those before its fork with the epoch before it. */
function historiesOf(epochs: readonly Epoch[]): string[][] {
  let before: string[] = [];
  return epochs.map(({ fork, records }, at) => {
    const shared = before.slice(0, at === 0 ? 0 : fork - 1);
    before = [...shared, ...Array.from({ length: records }, (_, n) => `${at}/${shared.length + n}`)];
    return before;
  });
}

it('whatever batches nodes ship in whatever epochs, a copy has each epoch once, from the backup to its end', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(epoch, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 3_000 }),
      async (epochs, seq) => {
        const objects = objectsInMemory();
        const sink = chainSink(objects, async () => ID);
        const histories = historiesOf(epochs);
        const expected: string[] = [];
        for (const [at, hashes] of histories.entries()) {
          const lineOf = (n: number) =>
            `${JSON.stringify({ seq: n, prev_hash: hashes[n - 2] ?? '', hash: hashes[n - 1] })}\n`;
          const own = hashes.findIndex((hash) => hash.startsWith(`${at}/`)) + 1;
          const starts = (epochs[at]?.nodes ?? []).map(({ back }) =>
            at === 0 ? 1 : Math.max(1, own - back),
          );
          for (const [place, { batches }] of (epochs[at]?.nodes ?? []).entries())
            for (let first = starts[place] ?? 1, n = 0; first <= hashes.length; n++) {
              const last = Math.min(hashes.length, first + (batches[n % batches.length] ?? 1) - 1);
              const lines = Array.from({ length: last - first + 1 }, (_, one) => lineOf(first + one));
              await sink.append(lines, AbortSignal.timeout(60_000), { first, last, epoch: at });
              first = last + 1;
            }
          for (let n = Math.max(seq, Math.min(...starts)); n <= hashes.length; n++) expected.push(lineOf(n));
        }
        const found: string[] = [];
        for await (const { line } of linesFrom(objects, ID, seq)) found.push(line.toString());
        expect(found).toEqual(expected);
        const last = histories.at(-1)?.length ?? 0;
        expect(await lastRecord(objects, ID, seq)).toBe(last);
      },
    ),
    { numRuns: 60 },
  );
});
