import { z } from 'zod';

/** Characters of so many bytes in base64, padding included. */
function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

/**
 * Bytes as base64 (RFC 4648, section 4) in the one spelling that they have: padded, without white space and
 * loose bits. What passes is decoded by `Buffer.from(text, 'base64')`.
 */
export function base64Schema(bytesMax: number) {
  const fault = `must be at most ${bytesMax} bytes in base64, padded`;
  return z
    .string()
    .max(base64Length(bytesMax), fault)
    .refine((text) => isBase64(text) && bytesOf(text) <= bytesMax, fault)
    .meta({ contentEncoding: 'base64' });
}

const CHARACTERS = /^[A-Za-z0-9+/]*={0,2}$/;

function isBase64(text: string): boolean {
  if (text.length % 4 !== 0 || !CHARACTERS.test(text)) return false;
  const last = text.slice(-4);
  return Buffer.from(last, 'base64').toString('base64') === last;
}

function bytesOf(text: string): number {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  return (text.length / 4) * 3 - padding;
}
