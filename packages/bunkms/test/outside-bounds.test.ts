import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { BoundedKey } from '../src/outside/bounded-key.ts';
import { OutsideKeyError, type OutsideProvider } from '../src/outside/port.ts';

const SECRET = Buffer.alloc(32, 7);
const BLOB = Buffer.from('wrapped');

/** A provider whose calls end when the test says so, or by their deadlines. */
class HeldProvider implements OutsideProvider {
  readonly realName = 'held';
  readonly held: ((ends: Buffer | Error) => void)[] = [];
  /** Its running calls. */
  running = 0;

  async wrap(): Promise<Buffer> {
    return BLOB;
  }

  async unwrap(_blob: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    this.running++;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.held.push((ends) => (ends instanceof Error ? reject(ends) : resolve(ends)));
    const late = once(signal, 'abort').then(() => Promise.reject(signal.reason));
    return await Promise.race([promise, late]).finally(() => this.running--);
  }

  /** Ends the calls that run now, and those that follow them. */
  async endAll(count: number, ends: Buffer | Error = Buffer.from(SECRET)): Promise<void> {
    for (let ended = 0; ended < count; ended++) {
      await expect.poll(() => this.held.length).toBeGreaterThan(0);
      this.held.shift()?.(ends instanceof Error ? ends : Buffer.from(ends));
    }
  }

  async checkCredential(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}
}

const outcomeOf = (call: Promise<Buffer>) =>
  call.then(
    () => 'ok',
    (error: OutsideKeyError) => error.message,
  );

it('an outside key gets eight calls at once, 64 wait, and further ones are refused at once', async () => {
  const provider = new HeldProvider();
  await using key = new BoundedKey('held', 'test', provider);
  const admitted = Array.from({ length: 72 }, () => outcomeOf(key.unwrap(BLOB)));
  expect(await outcomeOf(key.unwrap(BLOB))).toBe('too many calls wait for it');
  expect(provider.running).toBe(8);
  await provider.endAll(72);
  expect(new Set(await Promise.all(admitted))).toEqual(new Set(['ok']));
});

it('while a provider hangs, one call at a time tries it; an answer lets all of them in again', async () => {
  const provider = new HeldProvider();
  await using key = new BoundedKey('held', 'test', provider);
  const hung = await Promise.all(Array.from({ length: 3 }, () => outcomeOf(key.unwrap(BLOB))));
  expect(new Set(hung)).toEqual(new Set(['no answer within 1.5 s']));
  provider.held.length = 0;
  const probe = outcomeOf(key.unwrap(BLOB));
  expect(await outcomeOf(key.unwrap(BLOB))).toBe('it does not answer, and another call tries it');
  expect(provider.running).toBe(1);
  await provider.endAll(1);
  expect(await probe).toBe('ok');
  const both = [key.unwrap(BLOB), key.unwrap(BLOB)].map(outcomeOf);
  await provider.endAll(2);
  expect(await Promise.all(both)).toEqual(['ok', 'ok']);
});

it('a provider that is slow under load, and still answers, does not count as one that hangs', async () => {
  const provider = new HeldProvider();
  await using key = new BoundedKey('held', 'test', provider);
  const calls = Array.from({ length: 4 }, () => outcomeOf(key.unwrap(BLOB)));
  await sleep(1_000);
  provider.held.shift()?.(Buffer.from(SECRET));
  const late = 'no answer within 1.5 s';
  expect((await Promise.all(calls)).toSorted()).toEqual([late, late, late, 'ok']);
  provider.held.length = 0;
  const both = [key.unwrap(BLOB), key.unwrap(BLOB)].map(outcomeOf);
  await provider.endAll(2);
  expect(await Promise.all(both)).toEqual(['ok', 'ok']);
});

it('a provider that answers with the secret itself, or with none, is not counted as one that works', async () => {
  const provider = new HeldProvider();
  provider.wrap = () => Promise.resolve(Buffer.from(SECRET));
  const outcomes: string[] = [];
  await using key = new BoundedKey('held', 'test', provider, { onCall: (one) => outcomes.push(one) });
  await expect(key.wrap(SECRET)).rejects.toMatchObject({ fault: 'unavailable', retryAfterS: 1 });
  const call = key.unwrap(BLOB);
  await Promise.all([
    expect(call).rejects.toMatchObject({ fault: 'damaged' }),
    provider.endAll(1, Buffer.alloc(5)),
  ]);
  expect(outcomes).toEqual(['unavailable', 'damaged']);
});

it('a refusal says when to ask again: the later, the longer the provider is away; an answer ends that', async () => {
  const clock = new FakeClock();
  const provider = new HeldProvider();
  const outcomes: string[] = [];
  await using key = new BoundedKey('held', 'test', provider, { clock, onCall: (one) => outcomes.push(one) });
  const retryAfterS = async (ends: Error) => {
    const call = key.unwrap(BLOB).catch((error: OutsideKeyError) => error.retryAfterS);
    await provider.endAll(1, ends);
    return await call;
  };
  const away = new OutsideKeyError('unavailable', 'away');
  const waits: unknown[] = [];
  for (const afterMs of [0, 500, 4_000, 60_000]) {
    clock.advance(afterMs);
    waits.push(await retryAfterS(away));
  }
  expect(waits).toEqual([1, 1, 5, 15]);
  expect(await retryAfterS(new OutsideKeyError('denied', 'no'))).toBe(1);
  expect(await retryAfterS(away)).toBe(1);
  expect(outcomes).toEqual([...Array(4).fill('unavailable'), 'denied', 'unavailable']);
});
