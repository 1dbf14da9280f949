import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { FakeClock } from '../testing/fake-clock.ts';
import { Connections, type ConnectionsOptions, FIRST_BYTE_MS } from './connection-limit.ts';

class FakeSocket extends EventEmitter {
  bytesRead = 0;
  destroyed = false;
  readonly remoteAddress: string;

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
  const connections = new Connections({ clock, max: 80, ofAddressMax: 10, ...options });
  const open = (address: string, count: number) =>
    Array.from({ length: count }, () => {
      const socket = new FakeSocket(address);
      connections.accept(socket as unknown as Socket);
      return socket;
    });
  const opened = (sockets: readonly FakeSocket[]) => sockets.filter(({ destroyed }) => !destroyed).length;
  return { clock, connections, open, opened };
}

test('one address, which of IPv6 is a /64, has a bounded number of connections, and others have theirs', () => {
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

test('the last places are kept for connections from this machine', () => {
  const { connections, open, opened } = connectionsOf();
  const strangers = Array.from({ length: 9 }, (_, n) => open(`192.0.2.${n}`, 10)).flat();
  expect(opened(strangers)).toBe(70);
  expect(opened([...open('127.0.0.1', 5), ...open('::1', 5)])).toBe(10);
  expect(opened(open('127.0.0.2', 1))).toBe(0);
  for (const socket of strangers) socket.destroy();
  expect(connections.share.held).toBe(10);
});

test('a trusted proxy has as many connections as there are', () => {
  const { open, opened } = connectionsOf({ isProxy: (address) => address === '192.0.2.1' });
  expect(opened(open('192.0.2.1', 100))).toBe(70);
});

test('a proxy on this machine, trusted or not, leaves the last places to other connections from this machine', () => {
  const trusted = connectionsOf({ isProxy: (address) => address === '127.0.0.1' });
  const proxied = trusted.open('127.0.0.1', 100);
  expect(trusted.opened(proxied)).toBe(70);
  expect(trusted.opened(trusted.open('::1', 20))).toBe(10);
  for (const socket of proxied) socket.destroy();
  expect(trusted.opened(trusted.open('192.0.2.1', 1))).toBe(1);
  const untrusted = connectionsOf();
  expect(untrusted.opened(untrusted.open('127.0.0.1', 10))).toBe(10);
  expect(untrusted.opened(untrusted.open('127.0.0.1', 20))).toBe(10);
  expect(untrusted.opened(untrusted.open('127.0.0.2', 1))).toBe(1);
});

test('a connection that sends nothing is closed after five seconds', () => {
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
