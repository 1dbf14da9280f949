import { z } from 'zod';

/** Length of the base64 text of this many bytes, with padding. */
function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

/**
 * Bytes as canonical base64 (RFC 4648, section 4): padded, without white space, and with unused bits zero.
 * `Buffer.from(text, 'base64')` decodes whatever passes.
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
