import { describe, expect, it } from 'vitest';
import { Backlog } from './backlog.ts';

describe('Backlog', () => {
  it('is full above its limit, and wakes everyone once when it no longer is', () => {
    const backlog = new Backlog(100);
    backlog.add(100);
    expect(backlog.isFull).toBe(false);
    backlog.add(50);
    expect(backlog.isFull).toBe(true);
    const woken: string[] = [];
    backlog.whenCapacity(() => woken.push('one'));
    backlog.whenCapacity(() => woken.push('other'));
    backlog.add(-40);
    expect(woken).toEqual([]);
    backlog.add(-10);
    expect(woken).toEqual(['one', 'other']);
    backlog.add(-10);
    expect(woken).toEqual(['one', 'other']);
    expect(backlog.bytes).toBe(90);
  });

  it('is full with fewer bytes if they belong to more projects, until one has none left', () => {
    const backlog = new Backlog(100, 30);
    backlog.add(60);
    backlog.countProject(1);
    expect(backlog.isFull).toBe(false);
    backlog.countProject(1);
    expect([backlog.isFull, backlog.isReserveFull, backlog.bytes]).toEqual([true, false, 60]);
    backlog.countProject(1);
    expect(backlog.isReserveFull).toBe(true);
    let isWoken = false;
    backlog.whenCapacity(() => {
      isWoken = true;
    });
    backlog.countProject(-1);
    backlog.countProject(-1);
    backlog.add(-1);
    expect([backlog.isFull, isWoken]).toEqual([false, true]);
  });

  it('lets a woken caller wait again', () => {
    const backlog = new Backlog(0);
    backlog.add(1);
    let woken = 0;
    const wait = () =>
      backlog.whenCapacity(() => {
        woken++;
        if (woken < 3) wait();
      });
    wait();
    for (let turn = 0; turn < 5; turn++) backlog.add(turn % 2 === 0 ? -1 : 1);
    expect(woken).toBe(3);
  });
});
