import { EventEmitter, on } from 'node:events';
import { Writable } from 'node:stream';
import type { KmsEvent } from '@bundoc/shared/contract/events';
import { createLogger } from '@bundoc/shared/logs/logger';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { afterEach, describe, expect, it } from 'vitest';
import { KmsEvents } from './events.ts';

const FAMILY = '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11';
const RESET = 'event: reset\ndata: {}\n\n';
const beat = (id: string) => `id: ${id}\nevent: heartbeat\ndata: {}\n\n`;
const rotate = (id: string, name = 'a-dek') =>
  `id: ${id}\nevent: key.rotate\ndata: {"name":"${name}","version":2}\n\n`;

/** A BunKMS whose streams the test writes, and which may refuse to open one. */
class FakeStreams {
  readonly openedWith: (string | undefined)[] = [];
  failure: Error | undefined;
  #emitter = new EventEmitter();

  readonly open = async (lastEventId: string | undefined, signal: AbortSignal) => {
    this.openedWith.push(lastEventId);
    if (this.failure !== undefined) throw this.failure;
    this.#emitter = new EventEmitter();
    const chunks = on(this.#emitter, 'chunk', { signal, close: ['end'] });
    return (async function* () {
      for await (const [chunk] of chunks) yield Buffer.from(chunk as string);
    })();
  };
  write(...blocks: string[]): void {
    for (const block of blocks) this.#emitter.emit('chunk', block);
  }
  end(): void {
    this.#emitter.emit('end');
  }
}

let running: KmsEvents | undefined;
afterEach(() => running?.[Symbol.asyncDispose]());

function start() {
  const streams = new FakeStreams();
  const seen: KmsEvent[] = [];
  const pauses: { ms: number; over: () => void }[] = [];
  const lines: string[] = [];
  const destination = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      lines.push(chunk.toString());
      done();
    },
  });
  const events = new KmsEvents({
    open: streams.open,
    onEvent: (event) => seen.push(event),
    logger: createLogger({ service: 'bundoc', level: 'info', destination }),
    random: () => 1,
    pause: (ms, signal) =>
      new Promise((resolve, reject) => {
        pauses.push({ ms, over: resolve });
        signal.addEventListener('abort', reject);
      }),
  });
  running = events;
  return {
    events,
    streams,
    seen,
    pauses,
    lines,
    settle: nextTurn,
    /** Ends the current pause. */
    goOn: async () => {
      pauses.at(-1)?.over();
      await nextTurn();
    },
    say: async (...blocks: string[]) => {
      await nextTurn();
      streams.write(...blocks);
      await nextTurn();
    },
    end: async () => {
      streams.end();
      await nextTurn();
    },
  };
}

describe('the events of BunKMS', () => {
  it('are delivered in order, without heartbeats', async () => {
    const { seen, say, events } = start();
    expect(events.isLive).toBe(false);
    const revoked = { jti: FAMILY, family: FAMILY, expires_at: '2026-01-01T00:00:00.000Z' };
    await say(RESET, `event: token.revoke\ndata: ${JSON.stringify(revoked)}\n\n`, beat('1:a'), rotate('2:b'));
    expect(seen).toEqual([
      { type: 'reset' },
      { type: 'token.revoke', ...revoked },
      { type: 'key.rotate', name: 'a-dek', version: 2 },
    ]);
    expect(events.isLive).toBe(true);
  });

  it('count as live only after all earlier revocations have arrived', async () => {
    const { say, events, lines } = start();
    const revoked = { jti: FAMILY, family: FAMILY, expires_at: '2026-01-01T00:00:00.000Z' };
    await say(RESET);
    expect(events.isLive).toBe(false);
    await say(
      'event: heartbeat\ndata: {}\n\n',
      'event: key.rotate\ndata: {"name":"a-dek","version":2}\n\n',
      `event: token.revoke\ndata: ${JSON.stringify(revoked)}\n\n`,
    );
    expect([events.isLive, lines]).toEqual([false, []]);
    await say(beat('1:a'));
    expect([events.isLive, lines.length]).toEqual([true, 1]);
  });

  it('may arrive in pieces of any size', async () => {
    const { seen, say } = start();
    await say(...rotate('1:a', 'p-dek'), ...rotate('2:b', 'q-dek'));
    expect(seen.map((event) => 'name' in event && event.name)).toEqual(['p-dek', 'q-dek']);
  });

  it('continue after the last one when the stream breaks, and start over after a reset', async () => {
    const { streams, say, end, goOn, events } = start();
    await say(RESET, rotate('7:a'), beat('9:b'));
    await end();
    expect(events.isLive).toBe(false);
    await goOn();
    await say(RESET);
    await end();
    await goOn();
    expect(streams.openedWith).toEqual([undefined, '9:b', undefined]);
  });

  it('events of an unknown kind are skipped, and their position counts', async () => {
    const { streams, seen, say, end, goOn } = start();
    await say('id: 5:a\nevent: key.sung\ndata: {"name":"x"}\n\n', 'colour: blue\n\n', rotate('6:b'));
    expect(seen).toHaveLength(1);
    await end();
    await goOn();
    expect(streams.openedWith).toEqual([undefined, '6:b']);
  });

  it.each([
    ['no JSON', 'event: key.rotate\ndata: {\n\n'],
    ['no key', 'event: key.disable\ndata: {"name":7}\n\n'],
    ['too long', `data: ${'x'.repeat(70_000)}`],
  ])('end the stream when one is unreadable (%s), and the next stream starts over', async (_what, block) => {
    const { streams, seen, say, goOn, pauses } = start();
    await say(rotate('1:a'), block, rotate('2:b'));
    expect(pauses).toHaveLength(1);
    await goOn();
    expect(seen).toHaveLength(1);
    expect(streams.openedWith).toEqual([undefined, undefined]);
  });

  it('are requested again with growing pauses, and at once after a stream that lasted', async () => {
    const { streams, pauses, goOn, say, end, settle } = start();
    streams.failure = new Error('refused');
    await end();
    await settle();
    for (let n = 0; n < 10; n++) await goOn();
    expect(pauses.map(({ ms }) => ms).slice(0, 4)).toEqual([100, 200, 400, 800]);
    expect(pauses.at(-1)?.ms).toBe(10_000);
    streams.failure = undefined;
    await goOn();
    await say(RESET, beat('1:a'));
    await end();
    expect(pauses.at(-1)?.ms).toBe(10_000);
    await goOn();
    await say(beat('1:a'), beat('1:a'));
    await end();
    expect(pauses.at(-1)?.ms).toBe(100);
  });

  it('are reported missing once for each reason, however long they are', async () => {
    const { streams, lines, goOn, say, end } = start();
    await say(RESET, beat('1:a'));
    streams.failure = new Error('refused');
    await end();
    for (let n = 0; n < 5; n++) await goOn();
    streams.failure = undefined;
    await goOn();
    await say(beat('1:a'));
    const logged = lines.map((line) => JSON.parse(line) as { msg: string; err?: { message: string } });
    // BunKMS also ends the stream when it stops, which is no defect.
    expect(logged[1]?.err).toEqual({ type: 'StreamEnded', message: 'the stream has ended' });
    expect(logged.map(({ err, msg }) => err?.message ?? msg)).toEqual([
      'events arrive from BunKMS',
      'the stream has ended',
      'refused',
      'events arrive from BunKMS',
    ]);
  });

  it('stop with the service, during a stream or a pause', async () => {
    const first = start();
    await first.say(RESET);
    await first.events[Symbol.asyncDispose]();
    expect(first.pauses).toHaveLength(0);
    const second = start();
    second.streams.failure = new Error('refused');
    await second.settle();
    await second.end();
    await second.events[Symbol.asyncDispose]();
  });
});
