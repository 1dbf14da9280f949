import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { ExportedKeyFacts } from '@bundoc/shared/crypto/exported-key';
import type { ExportRecorder } from '../audit/export-recorder.ts';
import type { Caller } from '../records/caller.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { refuseDestroyed, refuseIntended, requireEnabled, requireHolder } from './key-state.ts';
import { leaseIdOf, leaseTtlOf } from './leases.ts';
import { type OutsideAsking, openDek } from './open-dek.ts';
import { type ActingStorage, requireCurrent } from './storages.ts';
import { type KeyDeps, readStoredKey, stampOf, versionNotFound, versionOf } from './stored-key.ts';

export interface ExportDeps extends KeyDeps {
  readonly exports: Pick<ExportRecorder, 'release'>;
  /** How long the holder of a released key may keep it, milliseconds; at most `LEASE_TTL_MS`. */
  readonly leaseTtlMs: number;
}

export interface ReleasedKey {
  /** The raw DEK, which the caller wipes. */
  readonly dek: Buffer;
  readonly facts: ExportedKeyFacts;
}

export interface ExportRequest {
  readonly name: string;
  /** By default the current version. */
  readonly version?: number | undefined;
  /** The acting storage, if any: then only keys that it holds are released. */
  readonly acting?: ActingStorage | undefined;
  /** Why no storage asks; recorded. */
  readonly purpose?: 'drill' | undefined;
  /** Called once, before an outside key is asked. What it throws refuses the export. */
  readonly beforeOutside?: (() => void) | undefined;
}

/** Maximum retries for a key that changes during one export. */
const ROUNDS_MAX = 32;

/**
 * Releases a DEK, of the current version unless another is requested. This is the only place where key
 * material leaves the service. It leaves only after its CRITICAL record is durable: if anything fails before
 * that, the answer contains nothing of the key. The record is written only if the key has not changed since
 * it was read; otherwise the key is read again. So in the chain no release follows the disabling or
 * destruction of its key.
 *
 * `http/export-audit.ts` records refused and failed calls with the same recorder.
 *
 * A request without a storage gets a key whatever its holder. With a storage it gets only keys which that
 * storage holds, while its generation is the current one. The transaction of the record checks both again.
 *
 * @throws AppError `storage_superseded`, `key_unheld`, `key_held_elsewhere`, `key_deletion_intended` to a
 *   storage; `key_not_found` (also for a version that never existed), `key_disabled`, `key_pending_deletion`,
 *   `key_destroyed`, `key_not_exportable`, `key_version_destroyed`, `key_damaged`, `audit_unavailable`;
 *   `unauthenticated` when the token was revoked; `outside_key_denied`, `outside_key_unavailable`,
 *   `outside_key_changed`.
 */
export async function exportKey(
  deps: ExportDeps,
  request: ExportRequest,
  caller: Caller,
): Promise<ReleasedKey> {
  let isCounted = false;
  const beforeOutside = () => {
    if (!isCounted) request.beforeOutside?.();
    isCounted = true;
  };
  for (let round = 0; round < ROUNDS_MAX; round++) {
    try {
      return await tryExport(deps, { ...request, beforeOutside }, caller);
    } catch (error) {
      if (!hasCode(error, 'precondition_failed')) throw error;
    }
  }
  throw new AppError('overloaded');
}

/** @throws AppError `precondition_failed` when the key has changed in the meantime. */
async function tryExport(deps: ExportDeps, request: ExportRequest, caller: Caller): Promise<ReleasedKey> {
  const { acting } = request;
  // First, so that a superseded copy of a storage learns that, whatever the state of the key.
  const storage = acting === undefined ? undefined : await requireCurrent(deps, acting);
  const key = await readStoredKey(deps, request.name, request.version ?? 'current');
  const { record } = key;
  if (storage !== undefined) requireHeld(record, storage.id);
  requireEnabled(record);
  if (!record.exportable) throw new AppError('key_not_exportable');
  const number = request.version ?? record.version;
  if (number > record.version) throw versionNotFound(record);
  const version = versionOf(key, number, deps.logger);
  if (version.state === 'destroyed') throw new AppError('key_version_destroyed');
  const asking: OutsideAsking = defined({ before: request.beforeOutside });
  const dek = await openDek(deps, record, version, asking);
  const leaseTtlMs = leaseTtlOf(deps.leaseTtlMs, record);
  try {
    const receipt = await deps.exports.release(
      {
        keyId: record.id,
        name: record.name,
        version: version.version,
        leaseTtlMs,
        storage: storage?.id,
        purpose: request.purpose,
        outside: asking,
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
      ...defined({ outside_key: asking.key }),
      lease: { id: leaseIdOf(receipt), ttl_ms: leaseTtlMs },
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
