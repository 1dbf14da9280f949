/** What a scope is for. */
interface ScopeRule {
  /** What it allows, as in "a token with it may …". */
  readonly allows: string;
  /**
   * Every endpoint that takes the scope requires a service token and would refuse a client token, so BunKMS
   * issues none with it.
   */
  readonly serviceOnly?: true;
  /** It applies to the keys of its token: without any, the token can do next to nothing with it. */
  readonly ofKeys?: true;
}

/**
 * All scopes. `docs/scopes.md` repeats the table, and tests compare it with this one and with what the
 * endpoints require. The consoles and the command line show it.
 */
const RULES = {
  'kms:create_key': { allows: 'create keys', ofKeys: true },
  'kms:read_key': { allows: 'see keys, their versions and leases, but never their bytes', ofKeys: true },
  'kms:rotate_key': { allows: 'rotate keys', ofKeys: true },
  'kms:manage_key': { allows: 'enable, disable, restore and hand over keys', ofKeys: true },
  'kms:destroy_key': { allows: 'destroy keys', ofKeys: true },
  'kms:shred_key': {
    allows: 'destroy the keys of deleted projects, as their storage',
    serviceOnly: true,
    ofKeys: true,
  },
  'kms:export_key': { allows: 'get raw keys from BunKMS', serviceOnly: true, ofKeys: true },
  'kms:encrypt': { allows: 'encrypt and rewrap under keys, and make data keys', ofKeys: true },
  'kms:decrypt': { allows: 'decrypt under keys', ofKeys: true },
  'kms:audit': { allows: 'read and verify the audit chain' },
  'kms:metrics': { allows: 'read the metrics of BunKMS', serviceOnly: true },
  'kms:issue_client': { allows: 'issue client tokens for an application', serviceOnly: true },
  'kms:manage_kek': { allows: 'see, rotate, verify and retire KEKs', serviceOnly: true },
  'kms:admin': {
    allows: 'issue, list and revoke tokens, see the state of KEKs, and attach keys to outside keys',
    serviceOnly: true,
  },
  'docs:read': { allows: 'read documents, run queries and follow changes' },
  'docs:write': { allows: 'create, change and delete documents' },
  'docs:admin': { allows: 'define collections; back up, move and delete projects' },
  'docs:metrics': { allows: 'read the metrics of Bundoc, which cover all projects', serviceOnly: true },
} as const satisfies Readonly<Record<string, ScopeRule>>;

export type Scope = keyof typeof RULES;

export const SCOPES = Object.keys(RULES) as [Scope, ...Scope[]];

/** What a scope allows; undefined for one that this version does not know. */
export function rightOf(scope: string): string | undefined {
  return Object.hasOwn(RULES, scope) ? RULES[scope as Scope].allows : undefined;
}

/** The scopes among these that apply to the keys of their token. */
export function scopesOfKeys(scopes: readonly Scope[]): Scope[] {
  return scopes.filter((scope) => {
    const rule: ScopeRule = RULES[scope];
    return rule.ofKeys === true;
  });
}

/** Whether only service tokens may have the scope. */
export function isForServices(scope: Scope): boolean {
  const rule: ScopeRule = RULES[scope];
  return rule.serviceOnly === true;
}
