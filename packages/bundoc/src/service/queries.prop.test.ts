import { describe, expect, it } from 'vitest';
import { openDefinedStore } from '../collections/defined-store.ts';
import { cursorsOf } from '../crypto/sealed-cursor.ts';
import type { EmbeddedStore } from '../engine/files/store/embedded-store.ts';
import { EmbeddedProject } from '../testing/embedded-project.ts';
import { assertQueriesAreRight, type CrashingProject } from '../testing/queries-property.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';

const RUNS = Number(process.env['QUERY_RUNS'] ?? 300);

async function makeProject({
  survival,
}: {
  survival: 'synced only' | 'everything';
}): Promise<CrashingProject> {
  const project = new EmbeddedProject();
  let disk: SimulatedDisk = EmbeddedProject.disk();
  await project.create(disk);
  return {
    open: async () => openDefinedStore(endingWith(disk, await project.open(disk)), project.clock),
    rotate: async () => project.rotate(),
    crashBehind: (operations) => disk.failAt({ operation: operations + 1, when: 'after', what: 'crash' }),
    restart: async () => {
      disk = disk.crashed ? disk.powerCut(survival) : disk.restart();
    },
    get cursors() {
      return cursorsOf('p', project.cipher);
    },
  };
}

/** A store whose calls fail when its process dies, because the log then answers nothing. */
function endingWith(disk: SimulatedDisk, store: EmbeddedStore): EmbeddedStore {
  return new Proxy(store, {
    get: (of, name) => {
      const member: unknown = Reflect.get(of, name, of);
      if (typeof member !== 'function') return member;
      return (...args: unknown[]) => {
        const result: unknown = member.apply(of, args);
        return result instanceof Promise ? Promise.race([result, disk.crashes]) : result;
      };
    },
  });
}

describe('queries', () => {
  it('find what a naive evaluator finds, in its order, with any indexes, after updates, deletes, crashes and re-seals', async () => {
    const { pages, found, ordered } = await assertQueriesAreRight(makeProject, RUNS);
    // The indexes were used, for finding and for order.
    expect(found / pages).toBeGreaterThan(0.1);
    expect(ordered).toBeGreaterThan(0);
  });
});
