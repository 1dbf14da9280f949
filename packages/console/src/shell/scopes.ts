import { rightOf } from '@bundoc/shared/contract/scopes';

/** What a scope allows, in a few words. The claims of a token may name any. */
export function meaningOf(scope: string): string {
  return rightOf(scope) ?? 'unknown to this console';
}

/** Scopes for irreversible changes or disclosures. */
export const GRAVE: ReadonlySet<string> = new Set([
  'docs:admin',
  'kms:destroy_key',
  'kms:shred_key',
  'kms:export_key',
  'kms:issue_client',
  'kms:manage_kek',
  'kms:admin',
]);

/** The reach of a grant: `every project`, or their names. */
export function reachOf(kind: 'project' | 'key', names: readonly string[]): string {
  if (names.includes('*')) return `every ${kind}`;
  if (names.length === 0) return `no ${kind}`;
  return `${kind}${names.length === 1 ? '' : 's'} ${names.join(', ')}`;
}
