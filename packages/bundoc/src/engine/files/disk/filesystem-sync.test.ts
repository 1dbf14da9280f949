import { tmpdir } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { FilesystemSync, type FilesystemSyncDeps } from './filesystem-sync.ts';

const HERE = tmpdir();

/** Rounds that end when the test says so. */
function heldRounds() {
  const rounds: PromiseWithResolvers<void>[] = [];
  const ports: FilesystemSyncDeps = {
    deviceOf: async () => 1,
    isTrusted: async () => true,
    sync: () => {
      const round = Promise.withResolvers<void>();
      rounds.push(round);
      return round.promise;
    },
  };
  return { ports, rounds };
}

describe('FilesystemSync', () => {
  it('starts a new round for callers that come during one, and shares it among them', async () => {
    const { ports, rounds } = heldRounds();
    const sync = new FilesystemSync(ports);
    const first = sync.sync(HERE);
    await setImmediate();
    let settled = false;
    const later = Promise.all([sync.sync(HERE), sync.sync(HERE)]).finally(() => {
      settled = true;
    });
    await setImmediate();
    expect(rounds).toHaveLength(1);
    rounds[0]?.resolve();
    await first;
    await setImmediate();
    expect({ rounds: rounds.length, settled }).toEqual({ rounds: 2, settled: false });
    rounds[1]?.resolve();
    expect(await later).toEqual([true, true]);
    expect(rounds).toHaveLength(2);
  });

  it('fails all waiters after a failed write, and is not used again', async () => {
    const { ports, rounds } = heldRounds();
    const sync = new FilesystemSync(ports);
    const running = sync.sync(HERE);
    await setImmediate();
    const waiting = sync.sync(HERE);
    await setImmediate();
    const outcomes = Promise.allSettled([running, waiting]);
    rounds[0]?.reject(new Error('a write has failed'));
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(await sync.sync(HERE)).toBe(false);
    expect(rounds).toHaveLength(1);
  });

  it('does nothing where failed writes would not be reported', async () => {
    for (const isTrusted of [async () => false, () => Promise.reject(new Error('not there'))]) {
      const { ports, rounds } = heldRounds();
      expect(await new FilesystemSync({ ...ports, isTrusted }).sync(HERE)).toBe(false);
      expect(rounds).toHaveLength(0);
    }
  });

  it('works on this system or reports that it does not', async () => {
    expect(await new FilesystemSync().sync(HERE)).toBeTypeOf('boolean');
  });
});
