import { isIP, isIPv6 } from 'node:net';

const WITH_PORT = /^(?:\[([^\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5})$/;

/**
 * An IP address in the one form that it is compared in: lower case, compressed, without a zone, an
 * IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, what a dual-stack socket reports) as the IPv4 address that it
 * is. Brackets and a port, which some proxies add (`192.0.2.1:4711`, `[2001:db8::1]:4711`), are left out.
 *
 * @returns undefined when `address` is no IP address, or there is none: a peer that has gone already may have
 * left none.
 */
export function canonicalAddress(address: string | undefined): string | undefined {
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
 * What one caller can be held to: its IPv4 address, or the /64 of its IPv6 address, since within a /64 a
 * caller takes any address it likes.
 */
export function callerNetwork(address: string | undefined): string {
  const canonical = canonicalAddress(address);
  if (canonical === undefined || !isIPv6(canonical)) return canonical ?? 'unknown';
  const [head = '', tail] = canonical.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [left, right] = [groups(head), groups(tail ?? '')];
  const zeros = tail === undefined ? [] : Array<string>(8 - left.length - right.length).fill('0');
  const network = [...left, ...zeros, ...right].slice(0, 4).join(':');
  return `${canonicalAddress(`${network}::`)}/64`;
}
