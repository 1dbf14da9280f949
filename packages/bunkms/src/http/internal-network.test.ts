import type { NetworkInterfaceInfo } from 'node:os';
import { ConfigError } from '@bundoc/shared/process/config';
import { describe, expect, it } from 'vitest';
import { peersOf, resolveInternalAddress, watchAddress } from './internal-network.ts';

function face(address: string, cidr: string): NetworkInterfaceInfo {
  const family = address.includes(':') ? 'IPv6' : 'IPv4';
  return {
    address,
    cidr,
    family,
    netmask: '',
    mac: '',
    internal: /^(127\.|::1$)/.test(address),
    scopeid: 0,
  } as NetworkInterfaceInfo;
}

const interfaces = {
  lo: [face('127.0.0.1', '127.0.0.1/8'), face('::1', '::1/128')],
  eth0: [face('172.18.0.5', '172.18.0.5/16'), face('fd00:1::5', 'fd00:1::5/64')],
  eth1: [face('10.0.0.5', '10.0.0.5/24')],
};

describe('the address of the internal listener', () => {
  it.each(['0.0.0.0', '::', '::0', '0:0:0:0:0:0:0:0', '0', '0x0', '::ffff:0.0.0.0'])(
    'is never a wildcard: %s',
    async (host) => {
      await expect(resolveInternalAddress(host)).rejects.toThrow(ConfigError);
    },
  );

  it('is a configured address in its canonical form', async () => {
    expect(await resolveInternalAddress('127.0.0.1')).toBe('127.0.0.1');
    expect(await resolveInternalAddress('0:0:0:0:0:0:0:1')).toBe('::1');
    expect(await resolveInternalAddress('::ffff:127.0.0.1')).toBe('127.0.0.1');
  });

  it('is the only address of a name, in any form in which the lookup returns it', async () => {
    const resolved = resolveInternalAddress('kms', async () => ['10.0.0.5', '::ffff:10.0.0.5', '10.0.0.5']);
    expect(await resolved).toBe('10.0.0.5');
  });

  it('cannot be resolved from a name with several addresses', async () => {
    const resolved = resolveInternalAddress('kms', async () => ['10.0.0.5', '172.18.0.5']);
    await expect(resolved).rejects.toThrow(/several addresses/);
  });

  it('cannot be resolved from a name without an address', async () => {
    await expect(resolveInternalAddress('kms.invalid')).rejects.toThrow(
      /BUNKMS_INTERNAL_HOST: the name has no address/,
    );
  });
});

describe('peers of the internal listener', () => {
  it.each([
    ['172.18.0.5', '172.18.200.1', true],
    ['172.18.0.5', '::ffff:172.18.0.9', true],
    ['172.18.0.5', '172.19.0.1', false],
    ['172.18.0.5', '10.0.0.6', false],
    ['172.18.0.5', '127.0.0.1', false],
    ['172.18.0.5', 'fd00:1::9', false],
    ['10.0.0.5', '10.0.0.255', true],
    ['10.0.0.5', '10.0.1.1', false],
    ['fd00:1::5', 'fd00:1::9', true],
    ['fd00:1::5', 'fd00:2::9', false],
    ['127.0.0.1', '127.9.9.9', true],
    ['127.0.0.2', '127.0.0.1', true],
    ['::1', '::1', true],
    ['::1', '127.0.0.1', false],
    ['10.0.0.5', 'nonsense', false],
  ])('bound to %s: %s → %s', (address, peer, isPeer) => {
    expect(peersOf(address, interfaces)(peer)).toBe(isPeer);
  });

  it('cannot be determined for an address that no interface has', () => {
    expect(() => peersOf('192.0.2.1', interfaces)).toThrow(ConfigError);
    expect(() => peersOf('172.18.0.6', interfaces)).toThrow(ConfigError);
    expect(() => peersOf('10.0.0.5', {})).toThrow(ConfigError);
    expect(() => peersOf('10.0.0.77', interfaces)).toThrow(ConfigError);
  });
});

it('the loss of the address by its interface is logged once', async () => {
  let current: typeof interfaces | Record<string, never> = interfaces;
  let asked = 0;
  const gone = Promise.withResolvers<void>();
  let reported = 0;
  const read = () => {
    asked++;
    if (asked === 3) current = {};
    return current;
  };
  using _watch = watchAddress(
    '10.0.0.5',
    read,
    () => {
      reported++;
      gone.resolve();
    },
    1,
  );
  await gone.promise;
  expect([asked, reported]).toEqual([3, 1]);
});
