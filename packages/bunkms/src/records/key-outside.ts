import type { AuditDraft } from './chain.ts';
import type { KeyOutside } from './key-record.ts';

/** The outside key of a key in the details of its changes. */
export function outsideDetail({ key, identity, leaseTtlS }: KeyOutside) {
  return { outside: key, outside_identity: identity, lease_ttl_s: leaseTtlS } satisfies NonNullable<
    AuditDraft['detail']
  >;
}
