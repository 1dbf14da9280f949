import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { startManager } from '../testing/managed-instances.ts';

describe('a wait for a change', () => {
  const never = new AbortController().signal;

  it('keeps no project open, and ends with the write of anyone who opens it again', async () => {
    const { clock, manager, write, closings } = startManager({ idleTtlMs: 1_000 });
    await write('p');
    const waiting = manager.waitForChange('p', 1, never);
    clock.advance(1_000);
    manager.sweep();
    await expect.poll(closings).toBe(1);
    expect(manager.size).toBe(0);
    await write('p', 'b');
    expect(await waiting).toBe(true);
  });

  it('does not end when the project is opened and nothing has changed', async () => {
    const { clock, manager, write, closings } = startManager({ idleTtlMs: 1_000 });
    await write('p');
    const stop = new AbortController();
    const waiting = manager.waitForChange('p', 1, stop.signal);
    clock.advance(1_000);
    manager.sweep();
    await expect.poll(closings).toBe(1);
    {
      using lease = await manager.acquire('p', 'existing');
      expect(await lease?.store.position()).toBe(1);
    }
    await nextTurn();
    stop.abort();
    expect(await waiting).toBe(false);
  });

  it('ends when its signal is aborted, whether the project is open or closed', async () => {
    const { manager, write } = startManager();
    await write('p');
    const stop = new AbortController();
    const both = [
      manager.waitForChange('p', 1, stop.signal),
      manager.waitForChange('closed', 0, stop.signal),
    ];
    await nextTurn();
    stop.abort();
    expect(await Promise.all(both)).toEqual([false, false]);
    expect(await manager.waitForChange('p', 0, stop.signal)).toBe(false);
  });

  it('opens a closed project that others may have written to', async () => {
    const { clock, manager, write, closings, openings } = startManager({ idleTtlMs: 1_000, isShared: true });
    await write('p');
    const stop = new AbortController();
    const waiting = manager.waitForChange('p', 1, stop.signal);
    clock.advance(1_000);
    manager.sweep();
    await expect.poll(closings).toBe(1);
    await expect.poll(openings).toBe(2);
    stop.abort();
    expect(await waiting).toBe(false);
  });
});
