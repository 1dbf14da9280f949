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
  const accepted = new Map(
    header.split(',').map((part) => {
      const [name = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
      const refused = parameters.some((parameter) => /^q=0(\.0{0,3})?$/.test(parameter));
      return [name, !refused] as const;
    }),
  );
  return CODINGS.find((coding) => has(coding) && (accepted.get(coding) ?? accepted.get('*')) === true);
}
