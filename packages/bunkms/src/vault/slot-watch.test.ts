import { createLogger } from '@bundoc/shared/logs/logger';
import { expect, it } from 'vitest';
import type { SlotState } from './open-ring.ts';
import { SlotWatch } from './slot-watch.ts';

type State = SlotState['state'];

/** A watch whose slots answer as the test says, on a clock of the test. */
function watched() {
  const clock = { now: 0, asked: 0, states: ['opens'] as readonly State[], isReadable: true };
  const withdrawn: string[] = [];
  const gauge = new Map<string, number>();
  const watch = new SlotWatch({
    provider: {
      askSlots: async () => {
        clock.asked += 1;
        if (!clock.isReadable) throw new Error('no such file');
        return clock.states.map((state, index) => ({ name: `slot-${index}`, state }));
      },
    },
    onWithdrawn: (slots) => withdrawn.push(slots.join(' ')),
    clock: { monotonic: () => clock.now },
    logger: createLogger({ service: 'bunkms', level: 'silent' }),
    metrics: { sealSlots: { set: ({ state }, value) => gauge.set(state, value) } },
  });
  const after = async (seconds: number, ...states: State[]) => {
    clock.now += seconds * 1_000;
    if (states.length > 0) clock.states = states;
    await watch.look();
  };
  return { clock, withdrawn, gauge, watch, after };
}

it('asks the slots at once and then each minute, and counts what they answer', async () => {
  const { clock, gauge, watch, after } = watched();
  await using _watch = watch;
  await watch.look();
  expect(clock.asked).toBe(1);
  for (const [seconds, asked] of [
    [50, 1],
    [10, 2],
    [50, 2],
    [10, 3],
  ] as const) {
    await after(seconds, 'opens', 'offline', 'unavailable');
    expect(clock.asked).toBe(asked);
  }
  expect(Object.fromEntries(gauge)).toEqual({ opens: 1, offline: 1, denied: 0, unavailable: 1, damaged: 0 });
});

it('tells that the ring is withdrawn once all online slots have denied three times, ten seconds apart', async () => {
  const { withdrawn, watch, after } = watched();
  await using _watch = watch;
  await watch.look();
  await after(60, 'denied', 'offline', 'denied');
  await after(10);
  expect(withdrawn).toEqual([]);
  await after(10);
  expect(withdrawn).toEqual(['slot-0 slot-2']);
  await after(10);
  expect(withdrawn).toHaveLength(1);
});

it.each<[string, readonly State[]]>([
  ['another one opens the ring', ['denied', 'opens']],
  ['another one is away', ['denied', 'unavailable']],
  ['another one is damaged', ['denied', 'damaged']],
  ['no slot is online', ['offline', 'offline']],
  ['the ring is plain', []],
])('keeps the ring while slots deny, when %s', async (_title, states) => {
  const { clock, withdrawn, watch, after } = watched();
  await using _watch = watch;
  await watch.look();
  clock.states = states;
  for (let times = 0; times < 8; times++) await after(60);
  expect(withdrawn).toEqual([]);
});

it('begins to count again after one answer that is no denial, but not after a file that cannot be read', async () => {
  const { clock, withdrawn, watch, after } = watched();
  await using _watch = watch;
  await watch.look();
  await after(60, 'denied');
  await after(10);
  await after(10, 'unavailable');
  await after(60, 'denied');
  await after(10);
  clock.isReadable = false;
  await after(10);
  expect(withdrawn).toEqual([]);
  clock.isReadable = true;
  await after(10);
  expect(withdrawn).toEqual(['slot-0']);
});
