import { createHash } from 'node:crypto';
import { keyNameSchema } from '@bundoc/shared/contract/keys';

const ORIGIN = /^https?:\/\/[^/]*/i;

/**
 * Path of a request's raw target, without origin, query and fragment, its percent-encoded ASCII decoded once;
 * the rest stays as it came.
 */
export function pathOfTarget(target: string): string {
  const [path = ''] = target.replace(ORIGIN, '').split(/[?#]/, 1);
  return path.replace(/%([0-7][0-9a-f])/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/**
 * How audit records name the key that stands in a path. What is no key name is hashed: the chain is kept for
 * ever, and a stranger must not choose what stands in it.
 *
 * @returns undefined when nothing stands there.
 */
export function keyNamedBy(text: string): string | undefined {
  if (text === '') return undefined;
  if (keyNameSchema.safeParse(text).success) return text;
  return `sha256:${createHash('sha256').update(text, 'utf8').digest('hex')}`;
}
