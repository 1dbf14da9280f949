import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Pool } from '../admission/pool.ts';
import { systemClock } from '../runtime/clock.ts';
import { EventStream } from './event-stream.ts';
import { COUNTED_WRITE_BYTES_MIN, StreamBufferBudget } from './stream-buffer-budget.ts';

const MIB = 1_048_576;
/** More than the system buffers for a connection that nobody reads. */
const EVENT_BYTES = 24 * MIB;

describe('event streams with a shared buffer budget', () => {
  const server = createServer();
  const clients: Socket[] = [];
  beforeEach(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    server.close();
    await once(server, 'close');
  });

  const KEY = { subject: 'a', project: 'p' };
  type Room = ReturnType<typeof roomOf>;

  function roomOf(capacity: number) {
    const share = new Pool({ name: 'stream bytes', capacity, clock: systemClock, waitMs: 0 });
    return { share, of: new StreamBufferBudget(share) };
  }

  /** A stream whose reader reads nothing until the test tells it to. */
  async function open(room: Room) {
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause();
    clients.push(client);
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    const [, response] = (await once(server, 'request')) as [unknown, ServerResponse];
    return {
      client,
      response,
      sink: new EventStream(response, { waitingBytesMax: 64 * MIB, room: { of: room.of, key: KEY } }),
    };
  }

  it('are cut off when stalled readers hold all of it, and have room again when these leave or read', async () => {
    const room = roomOf(40 * MIB);
    const [first, second, third] = [await open(room), await open(room), await open(room)];
    first.sink.send(Buffer.alloc(EVENT_BYTES));
    second.sink.send(Buffer.alloc(EVENT_BYTES));
    expect([first.sink.isClosed, second.sink.isClosed]).toEqual([false, true]);
    expect(room.share.held).toBe(EVENT_BYTES);
    first.client.resume();
    await first.sink.drained();
    expect(room.share.held).toBe(0);
    third.sink.send(Buffer.alloc(EVENT_BYTES));
    expect(third.sink.isClosed).toBe(false);
    const closed = once(third.response, 'close');
    third.client.destroy();
    await closed;
    expect(room.share.held).toBe(0);
  });

  it('tell how many bytes their readers have taken, even in the middle of a large event', async () => {
    const { client, sink } = await open(roomOf(40 * MIB));
    sink.send(Buffer.alloc(EVENT_BYTES));
    const atFirst = sink.sentBytes;
    expect(atFirst).toBeLessThan(EVENT_BYTES);
    for (let read = 0; read < EVENT_BYTES / 2; ) {
      const data = once(client, 'data') as Promise<[Buffer]>;
      client.resume();
      read += (await data)[0].length;
      client.pause();
    }
    await expect.poll(() => sink.sentBytes).toBeGreaterThan(atFirst + EVENT_BYTES / 4);
    expect([sink.needsDrain, sink.sentBytes < EVENT_BYTES]).toEqual([true, true]);
    client.resume();
    await sink.drained();
    // The headers and the frame of the chunk are counted as well.
    expect(sink.sentBytes).toBeGreaterThanOrEqual(EVENT_BYTES);
    expect(sink.sentBytes).toBeLessThan(EVENT_BYTES + 1_000);
  });

  it('pass their bytes to the system before "send" returns, so that a slice of work counts the time', async () => {
    const { sink } = await open(roomOf(40 * MIB));
    sink.send(Buffer.alloc(MIB));
    expect(sink.sentBytes).toBeGreaterThan(MIB / 100);
  });

  it('count shared bytes once, and do not count small writes', async () => {
    const room = roomOf(30 * MIB);
    const all = [await open(room), await open(room), await open(room)];
    const shared = Buffer.alloc(EVENT_BYTES);
    for (const { sink } of all) sink.send('x'.repeat(COUNTED_WRITE_BYTES_MIN - 1));
    expect(room.share.held).toBe(0);
    // A reader that is further ahead gets a smaller part of the same memory.
    for (const [at, { sink }] of all.entries()) sink.send(shared.subarray(at));
    expect(all.map(({ sink }) => sink.isClosed)).toEqual([false, false, false]);
    expect(room.share.held).toBe(EVENT_BYTES);
    for (const { response } of all) {
      expect(room.share.held).toBe(EVENT_BYTES);
      const closed = once(response, 'close');
      response.destroy();
      await closed;
    }
    expect(room.share.held).toBe(0);
  });

  it('allow a single event that is larger than the budget', async () => {
    const room = roomOf(MIB);
    const { sink } = await open(room);
    sink.send(Buffer.alloc(EVENT_BYTES));
    expect(sink.isClosed).toBe(false);
  });
});
