import { keyVersionParamSchema } from '@bundoc/shared/contract/keys';
import { keyNamedBy, pathOfTarget } from './audited-path.ts';

const EXPORT_PATH = '/v1/export';

/**
 * Tells whether a request is an access to export, from its raw target as it stood in the request line. The
 * router matches after decoding, so `/v1/%65xport/x` is one, and a target may come with its origin (RFC 9112,
 * section 3.2.2).
 */
export function isExportTarget(target: string): boolean {
  return pathOfTarget(target).startsWith(EXPORT_PATH);
}

/** How audit records name the key of an export target; undefined when it names none. */
export function keyOfExportTarget(target: string): string | undefined {
  return keyNamedBy(pathOfTarget(target).slice(EXPORT_PATH.length).replace(/^\//, ''));
}

/**
 * The version that an export target asks for.
 *
 * @returns undefined when it asks for none, or for what is no version: a stranger must not choose what stands
 * in the chain.
 */
export function versionOfExportTarget(target: string): number | undefined {
  const [beforeFragment = ''] = target.split('#', 1);
  const at = beforeFragment.indexOf('?');
  if (at === -1) return undefined;
  const [version, another] = new URLSearchParams(beforeFragment.slice(at)).getAll('version');
  return another === undefined ? keyVersionParamSchema.safeParse(version).data : undefined;
}
