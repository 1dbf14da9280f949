import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { CommitNotifier } from '../engine/commit/commit-notifier.ts';
import { ProjectChangeWaiter } from './project-change-waiter.ts';

const never = new AbortController().signal;

/** A project that opens and closes as the test says, and whose commits the test reports. */
function start() {
  let waiters: CommitNotifier | undefined;
  const waits = new ProjectChangeWaiter(
    {
      instanceIfOpen: () =>
        waiters && { store: { waitForChange: (after, signal) => waiters!.wait(after, signal) } },
      acquire: () => Promise.reject(new Error('nobody opens a project that none else writes to')),
    },
    false,
  );
  const turn = (opened: CommitNotifier | undefined) => {
    waiters = opened;
    waits.turned('p');
  };
  return { waits, turn };
}

describe('waits for changes', () => {
  it('continue while the project is closed and reopened, and end with the commit', async () => {
    const { waits, turn } = start();
    let hasEnded = false;
    const waiting = waits.wait('p', 7, never).finally(() => {
      hasEnded = true;
    });
    for (const opened of [new CommitNotifier(), undefined, new CommitNotifier(), undefined]) {
      turn(opened);
      await nextTurn();
    }
    const last = new CommitNotifier();
    turn(last);
    await nextTurn();
    last.committed(7);
    await nextTurn();
    expect(hasEnded).toBe(false);
    last.committed(8);
    expect(await waiting).toBe(true);
  });

  it('leave nothing behind in a closed store', async () => {
    const { waits, turn } = start();
    const former = new CommitNotifier();
    turn(former);
    const stop = new AbortController();
    const waiting = waits.wait('p', 7, stop.signal);
    await nextTurn();
    expect(former.isEmpty).toBe(false);
    turn(undefined);
    expect(former.isEmpty).toBe(true);
    stop.abort();
    expect(await waiting).toBe(false);
  });
});
