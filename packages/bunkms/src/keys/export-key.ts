import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { ExportedKeyFacts } from '@bundoc/shared/crypto/exported-key';
import type { ExportRecorder } from '../audit/export-recorder.ts';
import type { Caller } from '../records/caller.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { refuseDestroyed, refuseIntended, requireEnabled, requireHolder } from './key-state.ts';
import { leaseIdOf } from './leases.ts';
import { openDek } from './open-dek.ts';
import { type ActingStorage, requireCurrent } from './storages.ts';
import { type KeyDeps, readStoredKey, stampOf, versionOf } from './stored-key.ts';

export interface ExportDeps extends KeyDeps {
  readonly exports: Pick<ExportRecorder, 'release'>;
  /** How long anyone who gets a key may keep it, milliseconds; at most `LEASE_TTL_MS`. */
  readonly leaseTtlMs: number;
}

export interface ReleasedKey {
  /** The raw DEK, which the caller wipes. */
  readonly dek: Buffer;
  readonly facts: ExportedKeyFacts;
}

export interface ExportRequest {
  readonly name: string;
  /** The current one when absent. */
  readonly version?: number | undefined;
  /** The storage that asks, if one does: then only what it holds is released. */
  readonly acting?: ActingStorage | undefined;
}

/** A key that is changed more often than this during one export has nothing steady to release. */
const ROUNDS_MAX = 32;

/**
 * Releases a DEK, that of the current version unless another is asked for. The one place where key material
 * leaves the service, and it leaves only after its CRITICAL record is durable: whatever fails before that,
 * nothing of the key is in the answer. The record is written only while the key is what was read: when it was
 * changed meanwhile, it is read again, so that in the chain no release follows the disabling or the end of
 * its key.
 *
 * Refused and failed calls are recorded by the same recorder, where they are answered
 * (`http/export-audit.ts`).
 *
 * A request that names no storage gets what anybody holds. One that does gets what that storage holds,
 * while its generation is the current one: both are decided in the transaction of the record, too.
 *
 * @throws AppError `storage_superseded`, `key_unheld`, `key_held_elsewhere`, `key_deletion_intended` to a
 * storage; `key_not_found` (of a version that the key never had, too), `key_disabled`,
 * `key_pending_deletion`, `key_destroyed`, `key_not_exportable`, `key_version_destroyed`, `key_damaged`,
 * `audit_unavailable`; `unauthenticated` when the token was revoked meanwhile.
 */
export async function exportKey(
  deps: ExportDeps,
  request: ExportRequest,
  caller: Caller,
): Promise<ReleasedKey> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    try {
      return await tryExport(deps, request, caller);
    } catch (error) {
      if (!hasCode(error, 'precondition_failed')) throw error;
    }
  }
  throw new AppError('overloaded');
}

/** @throws AppError `precondition_failed` when the key was changed meanwhile. */
async function tryExport(deps: ExportDeps, request: ExportRequest, caller: Caller): Promise<ReleasedKey> {
  const { acting } = request;
  // First, so that a copy of a storage learns that it is one, whatever there is of the key.
  const storage = acting === undefined ? undefined : await requireCurrent(deps, acting);
  const key = await readStoredKey(deps, request.name, request.version ?? 'current');
  const { record } = key;
  if (storage !== undefined) requireHeld(record, storage.id);
  requireEnabled(record);
  if (!record.exportable) throw new AppError('key_not_exportable');
  const number = request.version ?? record.version;
  if (number > record.version) throw new AppError('key_not_found');
  const version = versionOf(key, number, deps.logger);
  if (version.state === 'destroyed') throw new AppError('key_version_destroyed');
  const dek = openDek(deps, record.name, version);
  try {
    const receipt = await deps.exports.release(
      {
        ...{ keyId: record.id, name: record.name, version: version.version },
        ...{ leaseTtlMs: deps.leaseTtlMs, storage: storage?.id },
      },
      caller,
      { jti: caller.jti, key: stampOf(record), storage },
    );
    const facts: ExportedKeyFacts = {
      algorithm: 'AES-256-GCM',
      name: record.name,
      key_id: record.id,
      version: version.version,
      kcv: version.kcv,
      wrapped_b64: Buffer.from(version.wrapped).toString('base64'),
      lease: { id: leaseIdOf(receipt), ttl_ms: deps.leaseTtlMs },
      audit: receipt,
    };
    return { dek, facts };
  } catch (error) {
    dek.fill(0);
    throw error;
  }
}

function requireHeld(record: KeyRecord, storage: string): void {
  refuseDestroyed(record);
  requireHolder(record, storage);
  refuseIntended(record);
}
