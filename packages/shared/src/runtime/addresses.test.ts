import { expect, it } from 'vitest';
import { callerNetwork, canonicalAddress } from './addresses.ts';

it.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['::FFFF:c000:0201', '192.0.2.1'],
  ['0:0:0:0:0:ffff:10.1.2.3', '10.1.2.3'],
  ['::ffff:0.0.0.0', '0.0.0.0'],
  ['::', '::'],
  ['::0', '::'],
  ['0:0:0:0:0:0:0:0', '::'],
  ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['fe80::1%eth0', 'fe80::1'],
  ['192.0.2.1:4711', '192.0.2.1'],
  ['[2001:DB8::1]:4711', '2001:db8::1'],
  ['[::ffff:192.0.2.1]', '192.0.2.1'],
  ['[192.0.2.1', undefined],
  ['192.0.2.1:', undefined],
  ['192.0.2:4711', undefined],
  ['localhost', undefined],
  ['', undefined],
  [undefined, undefined],
])('the address %s has the canonical form %s', (address, canonical) => {
  expect(canonicalAddress(address)).toBe(canonical);
});

it.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2:ffff::1', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8::/64'],
  ['::1', '::/64'],
  ['1::2:3:4:5:6:7', '1:0:2:3::/64'],
  ['192.0.2.1:4711', '192.0.2.1'],
  ['[2001:db8:1:2:3:4:5:6]:4711', '2001:db8:1:2::/64'],
  ['no address', 'unknown'],
  [undefined, 'unknown'],
])('the caller %s counts as %s', (address, network) => {
  expect(callerNetwork(address)).toBe(network);
});
