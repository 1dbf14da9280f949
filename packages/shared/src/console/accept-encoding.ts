/** Content codings that the console is kept in, the smallest first. */
const CODINGS = ['br', 'gzip'] as const;
export type Coding = (typeof CODINGS)[number];

/**
 * The coding that an `Accept-Encoding` header lets a file be sent in (RFC 9110, section 12.5.3).
 *
 * @param has those that the file is kept in.
 * @returns undefined for none: the file as it is, which every client takes.
 */
export function preferredCoding(
  header: string | undefined,
  has: (coding: Coding) => boolean,
): Coding | undefined {
  if (header === undefined) return undefined;
  const accepted = new Map(
    header.split(',').map((part) => {
      const [name = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
      const refused = parameters.some((parameter) => /^q=0(\.0{0,3})?$/.test(parameter));
      return [name, !refused] as const;
    }),
  );
  return CODINGS.find((coding) => has(coding) && (accepted.get(coding) ?? accepted.get('*')) === true);
}
