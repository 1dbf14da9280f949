import type { ExportedKeyFacts } from '@bundoc/shared/contract/exported-key';
import { AppError } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { Caller } from '../audit/caller.ts';
import type { Metrics } from '../metrics.ts';
import type { KeyPorts } from './keys.ts';
import { leaseIdOf } from './leases.ts';
import { openDek } from './open-dek.ts';

export interface ExportPorts extends KeyPorts {
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** How long whoever gets a key may keep it, milliseconds; at most `LEASE_TTL_MS`. */
  readonly leaseTtlMs: number;
}

export interface ReleasedKey {
  /** The raw DEK, which the caller wipes. */
  readonly dek: Buffer;
  readonly facts: ExportedKeyFacts;
}

/**
 * Releases a DEK, that of the current version unless another is asked for. The one place where key material leaves the
 * service, and it leaves only after its CRITICAL record is durable: whatever fails before that, nothing of the key is in
 * the answer.
 *
 * Refused and failed calls are recorded where they are answered (`http/export-audit.ts`).
 *
 * @throws AppError `KEY_NOT_FOUND` (of a version that the key never had, too), `key_damaged`, `audit_unavailable`;
 * `unauthenticated` when the token was revoked meanwhile.
 */
export async function exportKey(
  ports: ExportPorts,
  { name, version }: { readonly name: string; readonly version?: number | undefined },
  caller: Caller,
): Promise<ReleasedKey> {
  const key = await ports.store.findKey(name, version);
  if (key === undefined) throw new AppError('KEY_NOT_FOUND');
  const dek = openDek(ports, key);
  try {
    const { info, wrapped } = key;
    const receipt = await ports.audit.append(
      {
        ...caller,
        time: new Date(ports.clock.now()).toISOString(),
        severity: 'CRITICAL',
        action: 'key.export',
        outcome: 'allowed',
        key: name,
        version: info.version,
        detail: { key_id: info.id, lease_ttl_ms: ports.leaseTtlMs },
      },
      caller.jti,
    );
    ports.metrics.exports.inc({ outcome: 'allowed' });
    ports.logger.info(
      {
        keyName: name,
        version: info.version,
        actor: caller.actor,
        jti: caller.jti,
        source: caller.source,
        reqId: caller.request_id,
        outcome: 'allowed',
        auditSeq: receipt.seq,
      },
      'key exported',
    );
    const facts: ExportedKeyFacts = {
      algorithm: 'AES-256-GCM',
      name,
      key_id: info.id,
      version: info.version,
      kcv: info.kcv,
      wrapped_b64: Buffer.from(wrapped).toString('base64'),
      lease: { id: leaseIdOf(receipt), ttl_ms: ports.leaseTtlMs },
      audit: receipt,
    };
    return { dek, facts };
  } catch (error) {
    dek.fill(0);
    throw error;
  }
}
