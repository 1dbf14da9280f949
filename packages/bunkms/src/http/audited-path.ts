import { createHash } from 'node:crypto';
import { keyNameSchema } from '@bundoc/shared/contract/keys';

const ORIGIN = /^https?:\/\/[^/]*/i;

/**
 * The path of a raw request target, without origin, query and fragment. Percent-encoded ASCII is decoded
 * once; the rest is unchanged.
 */
export function pathOfTarget(target: string): string {
  const [path = ''] = target.replace(ORIGIN, '').split(/[?#]/, 1);
  return path.replace(/%([0-7][0-9a-f])/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/**
 * The name by which audit records refer to the key in a path. An invalid key name is hashed: the chain is
 * kept forever, and a stranger must not choose its content.
 *
 * @returns undefined for an empty text.
 */
export function keyNamedBy(text: string): string | undefined {
  if (text === '') return undefined;
  if (keyNameSchema.safeParse(text).success) return text;
  return `sha256:${createHash('sha256').update(text, 'utf8').digest('hex')}`;
}
