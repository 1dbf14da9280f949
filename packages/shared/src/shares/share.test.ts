import { expect, it } from 'vitest';
import { hasCode } from '../contract/app-error.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import type { Hold } from './hold.ts';
import { Share, type ShareOptions, WAIT_MS_MAX, WAITING_MAX } from './share.ts';

const key = (subject: string, project = 'p') => ({ subject, project });

function shareOf(options: Partial<ShareOptions> = {}) {
  const clock = new FakeClock();
  const share = new Share({ name: 'answers', capacity: 100, clock, ...options });
  return { clock, share };
}

/** The state of a request: its hold, its refusal, or neither while it waits. */
function follow(request: Promise<Hold>) {
  const seen: { hold?: Hold; error?: unknown } = {};
  const settled = request.then(
    (hold) => {
      seen.hold = hold;
    },
    (error: unknown) => {
      seen.error = error;
    },
  );
  return { seen, settled };
}

it('a sole tenant gets all of the capacity', () => {
  const { share } = shareOf();
  for (let n = 0; n < 10; n++) expect(share.tryTake(key('a'), 10)).toBeDefined();
  expect([share.held, share.tryTake(key('a'), 1)]).toEqual([100, undefined]);
});

it('a request that is larger than the capacity is granted when nothing else is held', () => {
  const { share } = shareOf();
  const hold = share.tryTake(key('a'), 250);
  expect(hold?.units).toBe(250);
  expect(share.tryTake(key('b'), 1)).toBeUndefined();
  hold?.[Symbol.dispose]();
  hold?.[Symbol.dispose]();
  expect([share.held, share.subjects]).toEqual([0, 0]);
});

it('room goes to the subject that holds least, not to the one that asked first', async () => {
  const { share } = shareOf();
  const first = share.tryTake(key('greedy'), 60);
  share.tryTake(key('greedy'), 40);
  const more = follow(share.take(key('greedy'), 30));
  const other = follow(share.take(key('modest'), 30));
  first?.resize(30);
  await other.settled;
  expect([other.seen.hold?.units, more.seen.hold]).toEqual([30, undefined]);
});

it('within a subject, room goes to the project that holds least', async () => {
  const { share } = shareOf();
  const first = share.tryTake(key('a', 'large'), 100);
  const large = follow(share.take(key('a', 'large'), 50));
  const small = follow(share.take(key('a', 'small'), 50));
  first?.resize(50);
  await small.settled;
  expect(large.seen.hold).toBeUndefined();
});

it('a request is refused after five seconds: with 429 beyond its own share, with 503 when the process is full', async () => {
  const { clock, share } = shareOf();
  share.tryTake(key('greedy'), 100);
  const own = follow(share.take(key('greedy'), 1));
  const other = follow(share.take(key('modest'), 1));
  clock.advance(WAIT_MS_MAX - 1);
  share.sweep();
  expect([own.seen, other.seen]).toEqual([{}, {}]);
  clock.advance(1);
  share.sweep();
  await Promise.all([own.settled, other.settled]);
  expect(own.seen.error).toMatchObject({ code: 'rate_limited', detail: 'your share of answers is in use' });
  expect(other.seen.error).toMatchObject({
    code: 'overloaded',
    detail: 'the service has no answers to spare',
  });
  expect([share.waiting, share.held]).toEqual([0, 100]);
  expect(share.refusals).toEqual({ rate_limited: 1, overloaded: 1 });
});

it('Retry-After follows from the waiting units and the rate of releases', () => {
  const { clock, share } = shareOf();
  share.tryTake(key('a'), 50);
  const hold = share.tryTake(key('b'), 50);
  for (let second = 0; second < 10; second++) {
    clock.advance(1_000);
    hold?.resize(40);
    hold?.resize(50);
  }
  // Ten units per second, including the previous window.
  expect(share.refusal(key('c'), 950).retryAfterS).toBe(30);
  expect(share.refusal(key('c'), 95).retryAfterS).toBe(8);
  expect(share.refusal(key('c'), 5).retryAfterS).toBe(1);
  clock.advance(60_000);
  expect(share.refusal(key('c'), 5).retryAfterS).toBe(5);
});

it('caps limit a subject and a project, however much is free, but never the first hold', async () => {
  const { share } = shareOf({ subjectMax: 25, projectMax: 12, waitMs: 0 });
  expect(share.tryTake(key('a', 'one'), 40)).toBeDefined();
  await expect(share.take(key('a', 'two'), 1)).rejects.toMatchObject({ code: 'rate_limited' });
  for (const project of ['one', 'two']) expect(share.tryTake(key('b', project), 12)).toBeDefined();
  expect(share.tryTake(key('b', 'one'), 1)).toBeUndefined();
  expect(share.tryTake(key('b', 'three'), 1)).toBeDefined();
  expect(share.tryTake(key('b', 'three'), 1)).toBeUndefined();
});

it('small requests have a reserve, which large ones neither use nor delay', async () => {
  const { share } = shareOf({ reserve: 20, smallMax: 5 });
  const hold = share.tryTake(key('a'), 80);
  expect(share.tryTake(key('b'), 6)).toBeUndefined();
  const large = follow(share.take(key('b'), 40));
  const small = follow(share.take(key('b'), 5));
  await small.settled;
  expect([small.seen.hold?.units, large.seen.hold]).toEqual([5, undefined]);
  hold?.resize(41);
  const next = follow(share.take(key('c'), 1));
  await next.settled;
  // The released room is for the large one.
  expect([share.held, large.seen.hold]).toEqual([47, undefined]);
  hold?.[Symbol.dispose]();
  await large.settled;
  expect(large.seen.hold?.units).toBe(40);
});

it('one subject gets at most a quarter of the reserve, so that others find room in it', async () => {
  const { share } = shareOf({ reserve: 20, smallMax: 5 });
  share.tryTake(key('a'), 80);
  for (const units of [3, 2]) expect(share.tryTake(key('a'), units)).toBeDefined();
  expect(share.tryTake(key('a'), 1)).toBeUndefined();
  const own = follow(share.take(key('a'), 1));
  const other = follow(share.take(key('b'), 5));
  await other.settled;
  expect([other.seen.hold?.units, own.seen.hold, share.held]).toEqual([5, undefined, 90]);
});

it('waiting units are limited, and beyond the limit the subject with most of them has its latest request refused', async () => {
  const { share } = shareOf({ waitingUnitsMax: 50 });
  share.tryTake(key('flood'), 100);
  const first = follow(share.take(key('flood'), 20));
  const second = follow(share.take(key('flood'), 20));
  const other = follow(share.take(key('modest'), 20));
  await second.settled;
  expect(hasCode(second.seen.error, 'rate_limited')).toBe(true);
  expect([first.seen, other.seen, share.waiting]).toEqual([{}, {}, 2]);
  await expect(share.take(key('other'), 51)).rejects.toMatchObject({ code: 'overloaded' });
});

it('a reservation is not limited by the waiting units in memory, and is not refused instead of them', async () => {
  const { share } = shareOf({ waitingUnitsMax: 50 });
  share.tryTake(key('flood'), 100);
  const reservations = Array.from({ length: 5 }, () => follow(share.take(key('a'), 80, undefined, 0)));
  const first = follow(share.take(key('b'), 30));
  const second = follow(share.take(key('c'), 30));
  await second.settled;
  expect(hasCode(second.seen.error, 'overloaded')).toBe(true);
  expect([...reservations, first].map(({ seen }) => seen)).toEqual(Array(6).fill({}));
});

it('a subject is greedy while another that will hold less has waited for long enough', async () => {
  const { clock, share } = shareOf();
  expect(share.greedySubject(0)).toBeUndefined();
  const hold = share.tryTake(key('a'), 60);
  share.tryTake(key('b'), 40);
  const modest = follow(share.take(key('c'), 50));
  follow(share.take(key('a'), 1));
  clock.advance(1_999);
  expect(share.greedySubject(2_000)).toBeUndefined();
  clock.advance(1);
  expect(share.greedySubject(2_000)).toBe('a');
  // Taking room from one of two that hold the same amount would not help.
  hold?.resize(50);
  expect([modest.seen, share.greedySubject(2_000)]).toEqual([{}, undefined]);
});

it('an aborted request leaves the queue at once, and later ones are served', async () => {
  const { share } = shareOf();
  const hold = share.tryTake(key('a'), 90);
  const abort = new AbortController();
  const large = follow(share.take(key('b'), 50, abort.signal));
  const small = follow(share.take(key('c'), 10));
  abort.abort(new Error('gone'));
  await Promise.all([large.settled, small.settled]);
  expect(large.seen.error).toMatchObject({ message: 'gone' });
  expect(small.seen.hold?.units).toBe(10);
  hold?.[Symbol.dispose]();
  small.seen.hold?.[Symbol.dispose]();
  expect([share.held, share.waiting, share.subjects]).toEqual([0, 0, 0]);
});

it('a full queue refuses the latest request of the subject that has most in it', async () => {
  const { share } = shareOf();
  share.tryTake(key('flood'), 100);
  const flood = Array.from({ length: WAITING_MAX }, () => follow(share.take(key('flood'), 1)));
  const other = follow(share.take(key('modest'), 1));
  await flood.at(-1)?.settled;
  expect(hasCode(flood.at(-1)?.seen.error, 'rate_limited')).toBe(true);
  expect([other.seen, share.waiting]).toEqual([{}, WAITING_MAX]);
});

it('charged units count, whether or not there is room', () => {
  const { share } = shareOf();
  const hold = share.charge(key('a'), 0);
  hold.resize(150);
  expect([share.held, share.heldBy('a'), share.tryTake(key('b'), 1)]).toEqual([150, 150, undefined]);
  hold[Symbol.dispose]();
  hold.resize(10);
  expect([share.held, share.heldBy('a'), share.subjects]).toEqual([0, 0, 0]);
});

it('a hold of the reserve that grows beyond a small one gives the reserve back', () => {
  const { share } = shareOf({ reserve: 20, smallMax: 5 });
  share.tryTake(key('a'), 80);
  const grown = share.tryTake(key('b'), 5);
  expect(share.tryTake(key('b'), 1)).toBeUndefined();
  grown?.resize(15);
  expect(share.tryTake(key('b'), 5)).toBeDefined();
  expect(share.held).toBe(100);
  grown?.[Symbol.dispose]();
  expect(share.held).toBe(85);
});

it('holds of the reserve give it back once there is other room and no request waits for that', () => {
  const { share } = shareOf({ reserve: 20, smallMax: 5 });
  const large = share.tryTake(key('a'), 80);
  const small = ['b', 'c', 'd', 'e'].map((subject) => share.tryTake(key(subject), 5));
  expect([small.includes(undefined), share.tryTake(key('f'), 1)]).toEqual([false, undefined]);
  large?.resize(70);
  // Two of the four have left the reserve: all other room is in use, and half of the reserve is not.
  expect(share.tryTake(key('g'), 10)).toBeUndefined();
  for (const subject of ['f', 'g']) expect(share.tryTake(key(subject), 5)).toBeDefined();
  expect(share.tryTake(key('h'), 1)).toBeUndefined();
});
