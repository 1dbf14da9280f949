import { LEASE_TTL_S_MIN } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from './chain.ts';
import type { KeyOutside } from './key-record.ts';

/** The outside key of a key in the details of its changes. */
export function outsideDetail({ key, identity, leaseTtlS }: KeyOutside) {
  return { outside: key, outside_identity: identity, lease_ttl_s: leaseTtlS } satisfies NonNullable<
    AuditDraft['detail']
  >;
}

/** The identity of an outside key that only a wrapped version names, until the next attachment. */
const UNKNOWN_IDENTITY = '0'.repeat(64);

/**
 * The outside key of a recovered key, as its newest version names it. Which key the name stood for is
 * unknown, and so is the lease: the shortest one keeps every promise to its customer.
 */
export function recoveredOutside(key: string): KeyOutside {
  return { key, identity: UNKNOWN_IDENTITY, leaseTtlS: LEASE_TTL_S_MIN };
}

/** Whether a key was attached to this very outside key, as far as that is known. */
export function isSameOutside(
  attached: KeyOutside,
  { name, identity }: { readonly name: string; readonly identity: string },
): boolean {
  return attached.key === name && (attached.identity === identity || attached.identity === UNKNOWN_IDENTITY);
}
