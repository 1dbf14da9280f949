import { keyVersionParamSchema } from '@bundoc/shared/contract/keys';
import { keyNamedBy, pathOfTarget } from './audited-path.ts';

const EXPORT_PATH = '/v1/export';

/**
 * Whether a request is an access to export, by its raw target from the request line. The router matches after
 * decoding, so `/v1/%65xport/x` is one, and a target may include its origin (RFC 9112, section 3.2.2).
 */
export function isExportTarget(target: string): boolean {
  return pathOfTarget(target).startsWith(EXPORT_PATH);
}

/** The name by which audit records refer to the key of an export target; undefined when it names none. */
export function keyOfExportTarget(target: string): string | undefined {
  return keyNamedBy(pathOfTarget(target).slice(EXPORT_PATH.length).replace(/^\//, ''));
}

/**
 * The version in an export target.
 *
 * @returns undefined when it has none or an invalid one: a stranger must not choose the content of the chain.
 */
export function versionOfExportTarget(target: string): number | undefined {
  const [beforeFragment = ''] = target.split('#', 1);
  const at = beforeFragment.indexOf('?');
  if (at === -1) return undefined;
  const [version, another] = new URLSearchParams(beforeFragment.slice(at)).getAll('version');
  return another === undefined ? keyVersionParamSchema.safeParse(version).data : undefined;
}
