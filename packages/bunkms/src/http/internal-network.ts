import { lookup } from 'node:dns/promises';
import { BlockList, isIPv6, type Socket } from 'node:net';
import type { NetworkInterfaceInfo } from 'node:os';
import { ConfigError } from '@bundoc/shared/process/config';
import { canonicalAddress } from '@bundoc/shared/runtime/addresses';

const WILDCARDS: readonly string[] = ['0.0.0.0', '::'];

/**
 * The only address that the internal listener binds to.
 *
 * @param host an address, or a name with exactly one address.
 * @throws ConfigError for a wildcard in any spelling, and for a name without an address or with several.
 */
export async function resolveInternalAddress(host: string, lookUp = lookUpAll): Promise<string> {
  let found: string[];
  try {
    found = (await lookUp(host)).map((address) => canonicalAddress(address) ?? address);
  } catch (error) {
    throw new ConfigError([
      `BUNKMS_INTERNAL_HOST: the name has no address (${(error as NodeJS.ErrnoException).code})`,
    ]);
  }
  const [address, ...others] = new Set(found);
  if (address === undefined) throw new ConfigError(['BUNKMS_INTERNAL_HOST: the name has no address']);
  if (others.length > 0)
    throw new ConfigError([
      'BUNKMS_INTERNAL_HOST: the name has several addresses; give the one of the internal network',
    ]);
  if (WILDCARDS.includes(address))
    throw new ConfigError(['BUNKMS_INTERNAL_HOST: must be one address, not all of the machine']);
  return address;
}

async function lookUpAll(host: string): Promise<string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

/**
 * The peers that may connect to the internal listener: the subnet of the interface with `address`. Binding to
 * an address does not exclude others, because packets routed from other networks are accepted too.
 *
 * @returns a test of a peer's address.
 * @throws ConfigError when no interface has the address.
 */
export function peersOf(
  address: string,
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>,
): (peer: string) => boolean {
  const all = Object.values(interfaces).flatMap((infos) => infos ?? []);
  const subnets = all.flatMap((info) => {
    const subnet = subnetOf(info);
    return subnet === undefined
      ? []
      : [{ own: canonicalAddress(info.address), subnet, isLoopback: info.internal }];
  });
  // Loopback answers on every address of its subnet but lists only one, so subnets are checked too.
  const found =
    subnets.find(({ own }) => own === address) ??
    subnets.find(({ isLoopback, subnet }) => isLoopback && contains(subnet, address));
  if (found === undefined)
    throw new ConfigError(['BUNKMS_INTERNAL_HOST: no network interface of this machine has the address']);
  return (peer) => {
    const canonical = canonicalAddress(peer);
    return canonical !== undefined && contains(found.subnet, canonical);
  };
}

/**
 * Watches that an interface of this machine still has `address`. A container that leaves and rejoins its
 * network may get another address. A listener would then wait on an unreachable address.
 *
 * @param onGone called once.
 */
export function watchAddress(
  address: string,
  interfaces: () => NodeJS.Dict<NetworkInterfaceInfo[]>,
  onGone: () => void,
  everyMs = 5_000,
): Disposable {
  const timer = setInterval(() => {
    try {
      peersOf(address, interfaces());
    } catch {
      clearInterval(timer);
      onGone();
    }
  }, everyMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function subnetOf(info: NetworkInterfaceInfo): BlockList | undefined {
  const prefix = Number(info.cidr?.split('/')[1] ?? Number.NaN);
  const network = canonicalAddress(info.address);
  if (network === undefined || !Number.isInteger(prefix)) return undefined;
  const subnet = new BlockList();
  subnet.addSubnet(network, prefix, isIPv6(network) ? 'ipv6' : 'ipv4');
  return subnet;
}

function contains(subnet: BlockList, address: string): boolean {
  return subnet.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}

/**
 * Closes every connection from other networks before any byte of it is read, TLS included, and calls
 * `onRefused`.
 *
 * @returns whether a connection may continue.
 */
export function guardPeers(
  isPeer: (peer: string) => boolean,
  onRefused: (peer: string) => void,
): (socket: Socket) => boolean {
  return (socket) => {
    const peer = socket.remoteAddress;
    if (peer !== undefined && isPeer(peer)) return true;
    socket.destroy();
    onRefused(peer ?? 'unknown');
    return false;
  };
}
