import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { FakeClock } from '../testing/fake-clock.ts';
import {
  Connections,
  type ConnectionsOptions,
  connectionOf,
  limitForwarded,
  notePassed,
  OF_THIS_MACHINE,
  REFUSED_MAX,
  REFUSED_MS,
} from './connection-limit.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

let ports = 0;

class FakeSocket extends EventEmitter {
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
  const connections = new Connections({
    clock: new FakeClock(),
    max: 70,
    ofAddressMax: 10,
    ...options,
  });
  const open = (address: string, count: number) =>
    Array.from({ length: count }, () => {
      const socket = new FakeSocket(address);
      socket.isAccepted = connections.accept(socket as unknown as Socket);
      return socket;
    });
  const opened = (sockets: readonly FakeSocket[]) =>
    sockets.filter(({ isAccepted, destroyed }) => isAccepted && !destroyed).length;
  return { connections, open, opened };
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

it('this machine has further connections for health checks when all others are taken', () => {
  const { connections, open, opened } = connectionsOf({ isProxy: (address) => address === '192.0.2.1' });
  const others = open('192.0.2.1', 80);
  expect(opened(others)).toBe(70);
  const own = [...open('127.0.0.1', OF_THIS_MACHINE / 2), ...open('::1', OF_THIS_MACHINE / 2)];
  expect(opened(own)).toBe(OF_THIS_MACHINE);
  for (const [n, socket] of own.entries()) notePassed(socket as unknown as Socket, `s${n}`);
  expect(opened(open('127.0.0.2', 1))).toBe(0);
  for (const socket of [...others, ...own]) socket.destroy();
  expect(connections.share.held).toBe(0);
});

it('a new connection closes the oldest one without an authorized request, so silent ones lock nobody out', () => {
  const { connections, open, opened } = connectionsOf();
  const [passed] = open('198.51.100.1', 1);
  if (passed !== undefined) notePassed(passed as unknown as Socket, 's');
  const flood = Array.from({ length: 69 }, (_, n) => open(`2001:db8:0:${n}::1`, 1)).flat();
  const late = open('198.51.100.2', 2);
  expect(opened(late)).toBe(2);
  expect(flood.map(({ destroyed }) => destroyed).lastIndexOf(true)).toBe(1);
  expect([passed?.destroyed, connections.share.held]).toEqual([false, 70]);
  // An address beyond its own limit closes no connections of others.
  expect(opened(open('198.51.100.2', 20))).toBe(8);
});

it('a connection is refused when each other one has had an authorized request', () => {
  const { connections, open, opened } = connectionsOf();
  const all = Array.from({ length: 70 }, (_, n) => open(`192.0.2.${n}`, 1)).flat();
  for (const [n, socket] of all.entries()) notePassed(socket as unknown as Socket, `s${n}`);
  expect([opened(open('198.51.100.1', 1)), opened(all)]).toEqual([0, 70]);
  expect(connections.share.refusals).toEqual({ rate_limited: 0, overloaded: 1 });
});

it('a new connection closes the oldest one of a token with nearly all, so no token locks others out', () => {
  const { connections, open, opened } = connectionsOf();
  const few = open('192.0.2.99', 2);
  const many = Array.from({ length: 68 }, (_, n) => open(`192.0.2.${n}`, 1)).flat();
  for (const socket of few) notePassed(socket as unknown as Socket, 'few');
  for (const socket of many) notePassed(socket as unknown as Socket, 'many');
  const late = Array.from({ length: 5 }, (_, n) => {
    const [socket] = open(`198.51.100.${n}`, 1);
    notePassed(socket as unknown as Socket, `late-${n}`);
    return socket as FakeSocket;
  });
  expect([opened(late), opened(few), connections.share.held]).toEqual([5, 2, 70]);
  expect(many.map(({ destroyed }) => destroyed).lastIndexOf(true)).toBe(4);
});

it('a token that had all connections cannot close new ones before their first request by reconnecting', () => {
  const { open, opened } = connectionsOf();
  const many = Array.from({ length: 70 }, (_, n) => open(`192.0.2.${n}`, 1)).flat();
  for (const socket of many) notePassed(socket as unknown as Socket, 'many');
  const newcomers = [...open('198.51.100.1', 1), ...open('127.0.0.1', 1)];
  for (let n = 0; n < 3; n++) open(`203.0.113.${n}`, 1);
  expect(opened(newcomers)).toBe(2);
  for (let n = 3; n < 20; n++) open(`203.0.113.${n}`, 1);
  expect(newcomers.map(({ destroyed }) => destroyed)).toEqual([true, false]);
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

it('a refused connection closes after a second, which slows down clients that reconnect at once', () => {
  const { open } = connectionsOf();
  open('192.0.2.1', 10);
  const refused = open('192.0.2.1', 1);
  vi.advanceTimersByTime(REFUSED_MS - 1);
  const later = open('192.0.2.1', 1);
  const closed = () => [...refused, ...later].map(({ destroyed }) => destroyed);
  expect(closed()).toEqual([false, false]);
  vi.advanceTimersByTime(1);
  expect(closed()).toEqual([true, false]);
});

it('a limited number of refused connections stays open, and a client frees its place when it closes one', () => {
  const { open } = connectionsOf();
  open('192.0.2.1', 10);
  const refused = open('192.0.2.1', REFUSED_MAX + 1);
  expect(refused.map(({ destroyed }) => destroyed).indexOf(true)).toBe(REFUSED_MAX);
  refused[0]?.destroy();
  expect(open('192.0.2.1', 2).map(({ destroyed }) => destroyed)).toEqual([false, true]);
});

it('each connection of a trusted proxy has its own turn, because a proxy serves many clients', () => {
  const { open } = connectionsOf({ isProxy: (address) => address === '192.0.2.1' });
  const turnsOf = (address: string) =>
    new Set(open(address, 3).map((socket) => connectionOf(socket as unknown as Socket)?.turn));
  expect([turnsOf('192.0.2.1').size, turnsOf('198.51.100.1')]).toEqual([3, new Set(['198.51.100.1'])]);
});

it('connections of this machine beyond a limit serve health checks, but not clients of a proxy on it', () => {
  const { connections, open } = connectionsOf();
  type Hook = (request: object, reply: object, done: (error?: Error) => void) => void;
  let limit: Hook = () => undefined;
  const addHook = (_name: string, hook: Hook): void => {
    limit = hook;
  };
  limitForwarded({ addHook } as unknown as FastifyInstance, connections);
  const sockets = open('127.0.0.1', 11);
  const answerTo = (at: number, headers: Record<string, string>) => {
    const raw = Object.assign(new EventEmitter(), { socket: sockets[at] });
    const done = vi.fn();
    limit({ raw, headers, ip: '192.0.2.9' }, { raw, header: () => undefined }, done);
    return done.mock.lastCall?.[0] as Error | undefined;
  };
  expect(answerTo(10, {})).toBe(undefined);
  expect(answerTo(9, { 'x-forwarded-for': '192.0.2.9' })).toBe(undefined);
  for (const name of ['x-forwarded-for', 'forwarded'])
    expect(answerTo(10, { [name]: '192.0.2.9' })).toMatchObject({ name: 'AppError' });
});
