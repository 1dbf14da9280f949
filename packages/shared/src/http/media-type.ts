import { MIMEType } from 'node:util';

/**
 * True unless the media type names another charset: JSON between systems is UTF-8 (RFC 8259, section 8.1).
 */
export function isUtf8Type(contentType: string | undefined): boolean {
  if (contentType === undefined || contentType === 'application/json') return true;
  try {
    return (new MIMEType(contentType).params.get('charset') ?? 'utf-8').toLowerCase() === 'utf-8';
  } catch {
    return false;
  }
}

/** `type/subtype` of a media type, in lower case, without its parameters; undefined for an invalid one. */
export function essenceOf(contentType: string | undefined): string | undefined {
  try {
    return contentType === undefined ? undefined : new MIMEType(contentType).essence;
  } catch {
    return undefined;
  }
}
