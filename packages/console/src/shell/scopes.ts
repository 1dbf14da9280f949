import type { Scope } from '@bundoc/shared/contract/tokens';

/** What each scope allows, in a few words. */
export const SCOPES: Readonly<Record<Scope, string>> = {
  'docs:read': 'read documents, run queries, follow changes',
  'docs:write': 'create, change and delete documents',
  'docs:admin': 'define collections, back up, move and delete projects',
  'docs:metrics': 'read the metrics of Bundoc',
  'kms:create_key': 'create keys',
  'kms:read_key': 'see keys, their versions and leases',
  'kms:rotate_key': 'rotate keys',
  'kms:manage_key': 'disable, enable and restore keys',
  'kms:destroy_key': 'destroy keys',
  'kms:shred_key': 'destroy keys of deleted projects',
  'kms:export_key': 'export raw keys from BunKMS',
  'kms:encrypt': 'encrypt under keys',
  'kms:decrypt': 'decrypt under keys',
  'kms:audit': 'read and verify the audit chain',
  'kms:metrics': 'read the metrics of BunKMS',
  'kms:issue_client': 'issue client tokens for an application',
  'kms:manage_kek': 'rotate, verify and retire KEKs',
  'kms:admin': 'issue and revoke tokens, see the state of KEKs',
};

/** What a scope allows. The claims of a token may name any. */
export function meaningOf(scope: string): string {
  return SCOPES[scope as Scope] ?? 'unknown to this console';
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
