import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import { expect, it, vi } from 'vitest';
import { FakeClock } from '../testing/fake-clock.ts';
import {
  Connections,
  type ConnectionsOptions,
  FIRST_BYTE_MS,
  limitConnections,
  REFUSED_IN_CROWD_MS,
  REFUSED_MS,
  REFUSED_OF_CROWDED_SWEEP,
  REFUSED_OF_SWEEP,
} from './connection-limit.ts';
import type { LoopTurns } from './loop-turns.ts';

let ports = 0;

class FakeSocket extends EventEmitter {
  bytesRead = 0;
  destroyed = false;
  isAccepted = false;
  readonly remoteAddress: string;
  readonly remotePort = ++ports;
  readonly localPort = 8080;

  constructor(remoteAddress: string) {
    super();
    this.remoteAddress = remoteAddress;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
}

function connectionsOf(options: Partial<ConnectionsOptions> = {}) {
  const clock = new FakeClock();
  const connections = new Connections({
    ...{ clock, max: 80, ofAddressMax: 10, descriptorsMax: 10_000 },
    ...options,
  });
  const open = (address: string, count: number) =>
    Array.from({ length: count }, () => {
      const socket = new FakeSocket(address);
      socket.isAccepted = connections.accept(socket as unknown as Socket);
      if (socket.isAccepted) connections.begin(socket as unknown as Socket);
      return socket;
    });
  const opened = (sockets: readonly FakeSocket[]) =>
    sockets.filter(({ isAccepted, destroyed }) => isAccepted && !destroyed).length;
  return { clock, connections, open, opened };
}

it('each address (IPv6: each /64) has a limited number of connections, independent of the others', () => {
  const { connections, open, opened } = connectionsOf();
  const of4 = open('192.0.2.1', 20);
  expect(opened(of4)).toBe(10);
  expect(opened(open('::ffff:192.0.2.1', 1))).toBe(0);
  expect(opened([...open('2001:db8::1', 6), ...open('2001:db8::2', 6)])).toBe(10);
  expect(opened(open('192.0.2.2', 1))).toBe(1);
  expect(connections.share.refusals).toEqual({ rate_limited: 13, overloaded: 0 });
  for (const socket of of4) socket.destroy();
  expect(opened(open('192.0.2.1', 1))).toBe(1);
});

it('the last connections are reserved for this machine', () => {
  const { connections, open, opened } = connectionsOf();
  const strangers = Array.from({ length: 90 }, (_, n) => open(`192.0.2.${n}`, 1)).flat();
  expect(opened(strangers)).toBe(70);
  expect(opened([...open('127.0.0.1', 5), ...open('::1', 5)])).toBe(10);
  expect(opened(open('127.0.0.2', 1))).toBe(0);
  for (const socket of strangers) socket.destroy();
  expect(connections.share.held).toBe(10);
});

it('many addresses together leave others some connections: of those with most, the latest are closed', () => {
  const { connections, open, opened } = connectionsOf();
  const flood = Array.from({ length: 7 }, (_, n) => open(`192.0.2.${n}`, 10));
  const modest = open('198.51.100.1', 3);
  expect([opened(modest), flood.map(opened)]).toEqual([3, [9, 9, 9, 10, 10, 10, 10]]);
  expect(flood[0]?.at(-1)?.destroyed).toBe(true);
  // It gets none of an address that has hardly more.
  expect(opened([...modest, ...open('198.51.100.1', 7)])).toBe(4);
  expect([connections.share.held, flood.flat().filter(({ destroyed }) => destroyed).length]).toEqual([70, 4]);
  for (const socket of [...flood.flat(), ...modest]) socket.destroy();
  expect(connections.share.held).toBe(1);
});

it('many addresses with a few connections each keep no other one out', () => {
  const { open, opened } = connectionsOf();
  for (let n = 0; n < 24; n++) open(`192.0.2.${n}`, 3);
  expect(opened(open('198.51.100.1', 3))).toBe(1);
});

it('connections of a trusted proxy are not closed for others', () => {
  const { open, opened } = connectionsOf({ isProxy: (address) => address === '192.0.2.1' });
  const proxied = open('192.0.2.1', 70);
  expect([opened(open('198.51.100.1', 1)), opened(proxied)]).toEqual([0, 70]);
});

it('a trusted proxy is limited only by the total number of connections', () => {
  const { open, opened } = connectionsOf({ isProxy: (address) => address === '192.0.2.1' });
  expect(opened(open('192.0.2.1', 100))).toBe(70);
});

it.each([
  ['trusted', 70],
  ['not trusted', 10],
])(
  'a proxy on this machine, %s, cannot forward requests on reserved connections, but health checks are served',
  (kind, full) => {
    const isProxy = kind === 'trusted' ? (address: string) => address === '127.0.0.1' : undefined;
    const { connections, open, opened } = connectionsOf({ isProxy });
    const proxied = open('127.0.0.1', full);
    expect(opened(proxied)).toBe(full);
    const [last] = open('127.0.0.1', 1);
    const headersOfAnswer: string[][] = [];
    const ask = (socket: FakeSocket | undefined, headers: Record<string, string>) => {
      const ip = kind === 'trusted' ? (headers['x-forwarded-for'] ?? '127.0.0.1') : '127.0.0.1';
      const raw = new EventEmitter();
      const reply = { raw, header: (...header: string[]) => headersOfAnswer.push(header) };
      connections.acceptForwarded(
        { raw: { socket }, ip, headers } as unknown as FastifyRequest,
        reply as unknown as FastifyReply,
      );
      raw.emit('close');
    };
    expect(last?.isAccepted).toBe(true);
    ask(last, {});
    ask(proxied[0], { 'x-forwarded-for': '192.0.2.1' });
    expect(headersOfAnswer).toEqual([]);
    for (const header of ['x-forwarded-for', 'forwarded'])
      expect(() => ask(last, { [header]: '192.0.2.1' })).toThrow(/in use|to spare/);
    expect(headersOfAnswer).toEqual([
      ['connection', 'close'],
      ['connection', 'close'],
    ]);
    // This frees its connection for the next one.
    last?.destroy();
    expect(opened(open('127.0.0.1', 20))).toBe(10);
    for (const socket of proxied) socket.destroy();
    expect(opened(open('192.0.2.1', 1))).toBe(1);
  },
);

it('a connection that sends nothing is closed after five seconds', () => {
  const { clock, connections, open, opened } = connectionsOf();
  const [silent] = open('192.0.2.1', 1);
  const [talking] = open('192.0.2.1', 1);
  if (talking !== undefined) talking.bytesRead = 1;
  clock.advance(FIRST_BYTE_MS - 1);
  const late = open('192.0.2.1', 1);
  connections.sweep();
  expect(silent?.destroyed).toBe(false);
  clock.advance(1);
  connections.sweep();
  expect([silent?.destroyed, talking?.destroyed, opened(late)]).toEqual([true, false, 1]);
  expect([connections.cuts, connections.share.held]).toEqual([1, 2]);
});

it('a refused connection closes after a second, so that a client gains nothing by connecting again at once', () => {
  const { clock, connections, open } = connectionsOf();
  open('192.0.2.1', 10);
  const refused = open('192.0.2.1', 1);
  clock.advance(REFUSED_MS - 1);
  const later = open('192.0.2.1', 1);
  connections.sweep();
  const closed = () => [...refused, ...later].map(({ destroyed }) => destroyed);
  expect(closed()).toEqual([false, false]);
  clock.advance(1);
  connections.sweep();
  expect(closed()).toEqual([true, false]);
  connections.closeRefused();
  expect([closed(), connections.cuts]).toEqual([[true, true], 0]);
});

it('many refused connections close little by little, so that their clients do not connect again together', () => {
  const { clock, connections, open } = connectionsOf({ max: 800 });
  const refused = open('192.0.2.1', 10 + REFUSED_OF_SWEEP + 1).slice(10);
  const closed = () => refused.filter(({ destroyed }) => destroyed).length;
  clock.advance(REFUSED_MS);
  connections.sweep();
  expect(closed()).toBe(REFUSED_OF_SWEEP);
  connections.sweep();
  expect(closed()).toBe(REFUSED_OF_SWEEP + 1);
});

it('while others wait to be accepted, fewer refused connections close, and after some seconds all of them', () => {
  const { clock, connections, open } = connectionsOf({ max: 800 });
  const refused = open('192.0.2.1', 10 + REFUSED_OF_SWEEP).slice(10);
  const closed = () => refused.filter(({ destroyed }) => destroyed).length;
  clock.advance(REFUSED_MS);
  connections.sweep(true);
  expect(closed()).toBe(REFUSED_OF_CROWDED_SWEEP);
  clock.advance(REFUSED_IN_CROWD_MS - REFUSED_MS - 1);
  connections.sweep(true);
  expect(closed()).toBe(2 * REFUSED_OF_CROWDED_SWEEP);
  clock.advance(1);
  connections.sweep(true);
  expect(closed()).toBe(REFUSED_OF_SWEEP);
});

it('of one address, only a part of the refused connections stays open: others have some too', () => {
  const { connections, open } = connectionsOf();
  const stillOpen = (address: string) =>
    open(address, 10 + 60)
      .slice(10)
      .filter(({ destroyed }) => !destroyed).length;
  expect(['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4', '192.0.2.5'].map(stillOpen)).toEqual([
    40, 40, 40, 40, 0,
  ]);
  connections.closeRefused();
  expect([connections.refused.held, stillOpen('192.0.2.6')]).toEqual([0, 40]);
});

it('no refused connection stays open where descriptors are few', () => {
  const { open } = connectionsOf({ descriptorsMax: 1_024 });
  expect(open('192.0.2.1', 11).at(-1)?.destroyed).toBe(true);
});

it('a refused connection that its client closes frees its place at once', () => {
  const { connections, open } = connectionsOf();
  const refused = open('192.0.2.1', 11).at(-1);
  expect(connections.refused.held).toBe(1);
  refused?.destroy();
  expect(connections.refused.held).toBe(0);
});

it('connections of a trusted proxy each have a turn of their own, because they are of many clients', () => {
  const { connections, open } = connectionsOf({ isProxy: (address) => address === '192.0.2.1' });
  const turnsOf = (address: string) =>
    new Set(open(address, 3).map((socket) => connections.turnOf(socket as unknown as Socket)));
  expect([turnsOf('192.0.2.1').size, turnsOf('198.51.100.1')]).toEqual([3, new Set(['198.51.100.1'])]);
});

it('a server closes refused connections by whether it is crowded at that time', async () => {
  const { connections } = connectionsOf();
  const app = Fastify();
  const turns = { isCrowded: true };
  limitConnections(app, connections, turns as LoopTurns);
  await app.ready();
  const sweeps = vi.spyOn(connections, 'sweep');
  await expect.poll(() => sweeps.mock.calls).toContainEqual([true]);
  turns.isCrowded = false;
  await expect.poll(() => sweeps.mock.calls).toContainEqual([false]);
  await app.close();
});
