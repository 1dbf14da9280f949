import { createHash } from 'node:crypto';
import { keyNameSchema, keyVersionParamSchema } from '@bundoc/shared/contract/keys';

const EXPORT_PATH = '/v1/export';
const ORIGIN = /^https?:\/\/[^/]*/i;

/**
 * Tells whether a request is an access to export, from its raw target as it stood in the request line. The router matches
 * after decoding, so `/v1/%65xport/x` is one, and a target may come with its origin (RFC 9112, section 3.2.2).
 */
export function isExportTarget(target: string): boolean {
  return pathOf(target).startsWith(EXPORT_PATH);
}

/**
 * How audit records name the key of an export target. What is no key name is hashed: the chain is kept for ever, and
 * a stranger must not choose what stands in it.
 *
 * @returns undefined when the target names no key.
 */
export function keyOfExportTarget(target: string): string | undefined {
  const rest = pathOf(target).slice(EXPORT_PATH.length).replace(/^\//, '');
  if (rest === '') return undefined;
  if (keyNameSchema.safeParse(rest).success) return rest;
  return `sha256:${createHash('sha256').update(rest, 'utf8').digest('hex')}`;
}

/**
 * The version that an export target asks for.
 *
 * @returns undefined when it asks for none, or for what is no version: a stranger must not choose what stands in the chain.
 */
export function versionOfExportTarget(target: string): number | undefined {
  const [beforeFragment = ''] = target.split('#', 1);
  const at = beforeFragment.indexOf('?');
  if (at === -1) return undefined;
  const [version, another] = new URLSearchParams(beforeFragment.slice(at)).getAll('version');
  return another === undefined ? keyVersionParamSchema.safeParse(version).data : undefined;
}

/** Path of a target, without origin, query and fragment, its percent-encoded ASCII decoded once; the rest stays as it came. */
function pathOf(target: string): string {
  const [path = ''] = target.replace(ORIGIN, '').split(/[?#]/, 1);
  return path.replace(/%([0-7][0-9a-f])/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
