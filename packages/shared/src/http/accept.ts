import Negotiator from 'negotiator';

/** Parameters of a media range other than its quality. */
const PARAMETERS = /;(?!\s*q\s*=)[^;,]*/gi;

/**
 * The media type of `offered` that an `Accept` header prefers (RFC 9110, section 12.5.1). Quality decides,
 * then how exactly the type is named, then its place in the header, then the order of `offered`. Parameters
 * other than `q` are ignored. Express and `@fastify/accepts` use `negotiator`, too.
 *
 * @returns undefined when the header accepts none of them, or there is no header.
 */
export function preferred<T extends string>(
  accept: string | undefined,
  offered: readonly T[],
): T | undefined {
  if (accept === undefined) return undefined;
  const negotiator = new Negotiator({ headers: { accept: accept.replace(PARAMETERS, '') } });
  return negotiator.mediaType(offered) as T | undefined;
}

/** Content codings in which the console is stored, the smallest first. */
const CODINGS = ['br', 'gzip'] as const;
export type Coding = (typeof CODINGS)[number];

/**
 * The best coding of a file that an `Accept-Encoding` header accepts (RFC 9110, section 12.5.3).
 *
 * @param has the codings in which the file is stored.
 * @returns undefined to send the file without a coding, which every client accepts.
 */
export function preferredCoding(
  header: string | undefined,
  has: (coding: Coding) => boolean,
): Coding | undefined {
  if (header === undefined) return undefined;
  const accepted = new Negotiator({ headers: { 'accept-encoding': header } }).encodings([...CODINGS]);
  return CODINGS.find((coding) => has(coding) && accepted.includes(coding));
}
