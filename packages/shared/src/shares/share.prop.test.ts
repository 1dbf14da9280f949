import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FakeClock } from '../testing/fake-clock.ts';
import type { Hold } from './hold.ts';
import { Share, type ShareOptions, WAIT_MS_MAX } from './share.ts';
import type { ShareKey } from './share-key.ts';

const CAPACITY = 100;
const SMALL_MAX = 5;

const keys: fc.Arbitrary<ShareKey> = fc.record({
  subject: fc.constantFrom('a', 'b', 'c', 'd'),
  project: fc.constantFrom('p', 'q', 'r'),
});
const caps = fc.record({
  subjectMax: fc.constantFrom(Number.POSITIVE_INFINITY, 25),
  projectMax: fc.constantFrom(Number.POSITIVE_INFINITY, 12),
});

interface Asked {
  readonly key: ShareKey;
  readonly units: number;
  readonly sinceMs: number;
  readonly abort: AbortController;
  state: 'waiting' | 'held' | 'over';
  hold?: Hold;
}

/** A share, with a model of who holds what and who waits. */
class World {
  readonly clock = new FakeClock();
  readonly share: Share;
  readonly #options: Pick<ShareOptions, 'subjectMax' | 'projectMax'>;
  readonly all: Asked[] = [];

  constructor(options: Partial<ShareOptions>) {
    this.#options = options;
    this.share = new Share({ name: 'units', capacity: CAPACITY, clock: this.clock, ...options });
  }

  ask(key: ShareKey, units: number): void {
    const abort = new AbortController();
    const asked: Asked = { key, units, sinceMs: this.clock.monotonic(), abort, state: 'waiting' };
    this.all.push(asked);
    this.share.take(key, units, abort.signal).then(
      (hold) => Object.assign(asked, { hold, state: 'held' }),
      () => Object.assign(asked, { state: 'over' }),
    );
  }

  release(asked: Asked | undefined): void {
    if (asked === undefined) return;
    asked.hold?.[Symbol.dispose]();
    asked.state = 'over';
    delete asked.hold;
  }

  of(state: Asked['state']): Asked[] {
    return this.all.filter((asked) => asked.state === state);
  }

  pick(state: Asked['state'], at: number): Asked | undefined {
    const some = this.of(state);
    return some[at % Math.max(1, some.length)];
  }

  held(isCounted: (key: ShareKey) => boolean = () => true): number {
    return this.all.reduce((sum, { key, hold }) => (isCounted(key) ? sum + (hold?.units ?? 0) : sum), 0);
  }

  heldBySubjectOf({ key }: Asked): number {
    return this.held(({ subject }) => subject === key.subject);
  }

  isCapped(asked: Asked): boolean {
    const { subjectMax = Number.POSITIVE_INFINITY, projectMax = Number.POSITIVE_INFINITY } = this.#options;
    const { key, units } = asked;
    const bySubject = this.heldBySubjectOf(asked);
    const byProject = this.held(({ subject, project }) => subject === key.subject && project === key.project);
    return (
      (bySubject > 0 && bySubject + units > subjectMax) || (byProject > 0 && byProject + units > projectMax)
    );
  }

  /**
   * Whether an earlier request of the same project waits. Small requests keep their order, and so do large
   * ones.
   */
  isBehind(asked: Asked): boolean {
    const isSmall = asked.units <= SMALL_MAX;
    const [first] = this.of('waiting').filter(
      ({ key, units }) =>
        key.subject === asked.key.subject &&
        key.project === asked.key.project &&
        units <= SMALL_MAX === isSmall,
    );
    return first !== asked;
  }

  settled(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /** Ends everything, so that nothing is held any more. */
  async end(): Promise<void> {
    for (const { abort } of this.all) abort.abort();
    await this.settled();
    for (const asked of this.of('held')) this.release(asked);
    expect([this.share.held, this.share.waiting, this.share.subjects]).toEqual([0, 0, 0]);
  }
}

it('a released unit goes to a waiting subject that holds least', async () => {
  const capacity = 30;
  const asks = fc.array(keys, { minLength: 40, maxLength: 80 });
  await fc.assert(
    fc.asyncProperty(
      caps,
      asks,
      fc.array(fc.nat(200), { maxLength: 60 }),
      async (options, wanted, releases) => {
        const world = new World({ ...options, capacity });
        for (const key of wanted) world.ask(key, 1);
        await world.settled();
        for (const at of releases) {
          world.release(world.pick('held', at));
          const may = world.of('waiting').filter((asked) => !world.isCapped(asked));
          const least = Math.min(...may.map((asked) => world.heldBySubjectOf(asked)));
          const first = may.filter((asked) => world.heldBySubjectOf(asked) === least);
          const wereWaiting = world.of('waiting').length;
          await world.settled();
          const granted = may.filter(({ state }) => state === 'held');
          expect(granted.length).toBe(first.length === 0 ? 0 : 1);
          expect(world.of('waiting').length).toBe(wereWaiting - granted.length);
          expect(granted.every((asked) => first.includes(asked))).toBe(true);
        }
        await world.end();
      },
    ),
  );
});

type Step =
  | { readonly do: 'take'; readonly key: ShareKey; readonly units: number }
  | { readonly do: 'release' | 'shrink' | 'abort'; readonly at: number }
  | { readonly do: 'advance'; readonly ms: number };

const units = fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 1, max: 120 }));
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('take' as const), key: keys, units }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('release' as const), at: fc.nat(50) }) },
  fc.record({ do: fc.constantFrom('shrink' as const, 'abort' as const), at: fc.nat(50) }),
  fc.record({ do: fc.constant('advance' as const), ms: fc.nat(4_000) }),
);

it('no request waits while there is room or longer than five seconds, and the sum of holds ends at zero', async () => {
  const options = fc.tuple(caps, fc.constantFrom(0, 12));
  await fc.assert(
    fc.asyncProperty(options, fc.array(step, { maxLength: 60 }), async ([bounds, reserve], steps) => {
      const world = new World({ ...bounds, reserve, smallMax: SMALL_MAX });
      const { share, clock } = world;
      for (const one of steps) {
        if (one.do === 'take') world.ask(one.key, one.units);
        else if (one.do === 'release') world.release(world.pick('held', one.at));
        else if (one.do === 'abort') world.pick('waiting', one.at)?.abort.abort();
        else if (one.do === 'advance') {
          clock.advance(one.ms);
          share.sweep();
        } else {
          const { hold } = world.pick('held', one.at) ?? {};
          hold?.resize(Math.max(1, hold.units - 3));
        }
        await world.settled();
        const waiting = world.of('waiting');
        expect([share.held, share.waiting]).toEqual([world.held(), waiting.length]);
        for (const { sinceMs } of waiting) expect(clock.monotonic() - sinceMs).toBeLessThan(WAIT_MS_MAX);
        const may = waiting.filter((asked) => !world.isCapped(asked) && !world.isBehind(asked));
        const least = Math.min(...may.map((asked) => world.heldBySubjectOf(asked)));
        const next = may.filter((asked) => world.heldBySubjectOf(asked) === least);
        if (next.length > 0)
          expect(next.some((asked) => share.held > 0 && share.held + asked.units > CAPACITY - reserve)).toBe(
            true,
          );
      }
      await world.end();
    }),
  );
});
