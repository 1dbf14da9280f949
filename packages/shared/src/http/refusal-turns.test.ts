import { EventEmitter, once } from 'node:events';
import { connect } from 'node:net';
import { expect, it, vi } from 'vitest';
import { createLogger } from '../runtime/logger.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { RefusalTurns } from './refusal-turns.ts';
import { createHttpServer } from './server.ts';

function start() {
  const clock = new FakeClock();
  const turns = new RefusalTurns(clock);
  const sent: string[] = [];
  const refuse = (name: string, address = name, connection = new EventEmitter()) => {
    const turn = turns.take('overloaded', address, connection);
    if (turn === undefined) sent.push(name);
    else void turn.then(() => sent.push(name));
    return connection;
  };
  /** Sends what may be sent after some milliseconds. */
  const pass = async (ms: number) => {
    clock.advance(ms);
    turns.release();
    await Promise.resolve();
  };
  return { turns, sent, refuse, pass };
}

it('a refusal is sent at once while there are few', async () => {
  const { turns, sent, refuse, pass } = start();
  for (let n = 0; n < 50; n++) {
    for (let one = 0; one < 20; one++) refuse('one');
    expect([sent.length, turns.waiting]).toEqual([20 * (n + 1), 0]);
    await pass(20);
  }
});

it('a flood of refusals is sent at a bounded rate, and all of it in the end', async () => {
  const { turns, sent, refuse, pass } = start();
  for (let n = 0; n < 4_096; n++) refuse(`address ${n % 64}`);
  expect(sent.length).toBe(100);
  for (let ms = 0; ms < 1_000; ms += 10) await pass(10);
  expect(sent.length).toBe(1_100);
  for (let ms = 0; ms < 3_000; ms += 10) await pass(10);
  expect([sent.length, turns.waiting]).toEqual([4_096, 0]);
});

it('a single refusal of an address does not wait for the flood of others', async () => {
  const { sent, refuse, pass } = start();
  for (let n = 0; n < 2_000; n++) refuse(`flood ${n % 8}`);
  refuse('neighbour');
  await pass(10);
  expect(sent).toContain('neighbour');
  expect(sent.length).toBe(110);
});

it('a refusal whose client has gone is forgotten, and returns its place', async () => {
  const { turns, sent, refuse } = start();
  for (let n = 0; n < 100; n++) refuse('flood');
  const connection = refuse('gone', 'flood');
  expect(turns.waiting).toBe(1);
  connection.emit('close');
  await Promise.resolve();
  expect([turns.waiting, connection.listenerCount('close'), sent.length]).toEqual([0, 0, 101]);
});

it('answers of allowed requests never wait, and nothing waits once the server closes', async () => {
  const { turns, sent, refuse } = start();
  for (let n = 0; n < 200; n++) refuse('flood');
  expect(turns.take('document_not_found', 'flood', new EventEmitter())).toBeUndefined();
  turns.close();
  await Promise.resolve();
  refuse('late');
  expect([sent.length, turns.waiting]).toEqual([201, 0]);
});

it('bytes that are not HTTP are answered when it is their turn', async () => {
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as { port: number };
  const turn = Promise.withResolvers<void>();
  const take = vi.spyOn(RefusalTurns.prototype, 'takeAny').mockReturnValue(turn.promise);
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (bytes) => {
    text += bytes;
  });
  socket.write('GARBAGE\r\n\r\n');
  await expect.poll(() => take.mock.calls.length).toBe(1);
  expect([text, take.mock.calls[0]?.[0]]).toEqual(['', '127.0.0.1']);
  turn.resolve();
  await once(socket, 'close');
  expect(text).toMatch(/^HTTP\/1\.1 400 /);
});
