import { isIP, isIPv4, isIPv6 } from 'node:net';

const WITH_PORT = /^(?:\[([^\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5})$/;

/**
 * The canonical form of an IP address: lower case, compressed, without a zone. An IPv4-mapped IPv6 address
 * (`::ffff:192.0.2.1`, as dual-stack sockets report it) becomes the IPv4 address. Brackets and ports, which
 * some proxies add (`192.0.2.1:4711`, `[2001:db8::1]:4711`), are removed.
 *
 * @returns undefined when `address` is missing or not an IP address. A peer that has disconnected may have
 *   none.
 */
export function canonicalAddress(address: string | undefined): string | undefined {
  if (address !== undefined && isIPv4(address)) return address;
  const [, bracketed, ofIpv4] = WITH_PORT.exec(address ?? '') ?? [];
  const [unzoned = ''] = (bracketed ?? ofIpv4 ?? address ?? '').split('%');
  if (!isIPv6(unzoned)) return isIP(unzoned) === 4 ? unzoned : undefined;
  const compressed = new URL(`http://[${unzoned}]/`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(compressed);
  if (mapped === null) return compressed;
  const [high, low] = [mapped[1], mapped[2]].map((group) => Number.parseInt(String(group), 16));
  return [Number(high) >> 8, Number(high) & 255, Number(low) >> 8, Number(low) & 255].join('.');
}

/**
 * The network that identifies a caller: its IPv4 address, or the /64 of its IPv6 address. A caller may use
 * any address within a /64.
 */
export function callerNetwork(address: string | undefined): string {
  if (address !== undefined && isIPv4(address)) return address;
  const canonical = canonicalAddress(address);
  if (canonical === undefined || !isIPv6(canonical)) return canonical ?? 'unknown';
  const [head = '', tail] = canonical.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [left, right] = [groups(head), groups(tail ?? '')];
  const zeros = tail === undefined ? [] : Array<string>(8 - left.length - right.length).fill('0');
  const network = [...left, ...zeros, ...right].slice(0, 4).join(':');
  return `${canonicalAddress(`${network}::`)}/64`;
}
