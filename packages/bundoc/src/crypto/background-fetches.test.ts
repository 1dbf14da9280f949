import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { BackgroundFetches } from './background-fetches.ts';

it('looks at no key that waits behind those of its group which run', () => {
  let looks = 0;
  const fetches = new BackgroundFetches({
    clock: new FakeClock(),
    turnOf: () => {
      looks++;
      return 'now';
    },
    perSecond: () => 1_000,
    groupOf: () => 'acme',
    fetch: () => new Promise(() => undefined),
  });
  for (let n = 0; n < 20_000; n++) fetches.add(`a${n}`);
  fetches.start();
  fetches.start();
  expect(looks).toBe(4);
});

it('keys of one group that are slow leave half of the fetches to others', async () => {
  const running: string[] = [];
  const ends: (() => void)[] = [];
  const fetches = new BackgroundFetches({
    clock: new FakeClock(),
    turnOf: () => 'now',
    perSecond: () => 1_000,
    groupOf: (id) => id[0],
    fetch: (id) => {
      running.push(id);
      return new Promise<void>((resolve) => ends.push(resolve));
    },
  });
  for (let n = 0; n < 100; n++) fetches.add(`a${n}`);
  fetches.add('b');
  fetches.start();
  expect(running).toEqual(['a0', 'b', 'a1', 'a2', 'a3']);
  ends[0]?.();
  await expect.poll(() => running.at(-1)).toBe('a4');
  ends[2]?.();
  await expect.poll(() => running.at(-1)).toBe('a5');
  expect(fetches.size).toBe(94);
});
