import { createSecretKey, randomUUID } from 'node:crypto';
import { keyCheckValue, OpenError } from '@bundoc/shared/aead';
import { type ExportedKey, LEASE_TTL_MS } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { Caller } from '../audit/caller.ts';
import type { Metrics } from '../metrics.ts';
import type { KeyRecord } from '../store/port.ts';
import type { Vault } from '../vault/vault.ts';
import type { KeyPorts } from './keys.ts';

export interface ExportPorts extends KeyPorts {
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/**
 * Releases a DEK. The one place where key material leaves the service, and it leaves only after its CRITICAL record
 * is durable: whatever fails before that, nothing of the key is in the answer.
 *
 * Refused and failed calls are recorded where they are answered (`http/export-audit.ts`).
 *
 * @throws AppError `KEY_NOT_FOUND`, `key_damaged`, `audit_unavailable`; `unauthenticated` when the token was revoked meanwhile.
 */
export async function exportKey(ports: ExportPorts, name: string, caller: Caller): Promise<ExportedKey> {
  const key = await ports.store.findKey(name);
  if (key === undefined) throw new AppError('KEY_NOT_FOUND');
  const dek = openDek(ports, key);
  try {
    const { info, wrapped } = key;
    const lease = { id: randomUUID(), ttl_ms: LEASE_TTL_MS };
    const receipt = await ports.audit.append(
      {
        ...caller,
        time: new Date(ports.clock.now()).toISOString(),
        severity: 'CRITICAL',
        action: 'key.export',
        outcome: 'allowed',
        key: name,
        version: info.version,
        detail: { key_id: info.id, lease_id: lease.id, lease_ttl_ms: lease.ttl_ms },
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
    return {
      key_material_b64: dek.toString('base64'),
      algorithm: 'AES-256-GCM',
      name,
      key_id: info.id,
      version: info.version,
      kcv: info.kcv,
      wrapped_b64: Buffer.from(wrapped).toString('base64'),
      lease,
      audit: receipt,
    };
  } finally {
    dek.fill(0);
  }
}

/** @returns the raw DEK, which the caller wipes. @throws AppError `key_damaged`. */
function openDek({ vault, logger }: { vault: Vault; logger: Logger }, { info, wrapped }: KeyRecord): Buffer {
  const damaged = (reason: string): AppError => {
    logger.error(
      { keyName: info.name, keyId: info.id, version: info.version, reason },
      'a stored key is damaged',
    );
    return new AppError('key_damaged');
  };
  let dek: Buffer;
  try {
    dek = vault.unwrapDek(wrapped, { keyId: info.id, name: info.name, version: info.version });
  } catch (error) {
    if (error instanceof OpenError) throw damaged('it does not unwrap');
    throw error;
  }
  if (keyCheckValue(createSecretKey(dek)) === info.kcv) return dek;
  dek.fill(0);
  throw damaged('its check value differs');
}
