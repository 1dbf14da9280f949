import type { ByteSource } from '@bundoc/shared/files/file-source';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from '../records/caller.ts';
import type { KmsStore } from '../store/port.ts';
import type { LoadEntry } from '../store/transfer.ts';
import type { Vault } from '../vault/vault.ts';
import type { EvidenceOfCopy } from './evidence.ts';
import type { RestoreOptions } from './restore-parts.ts';
import { type RestoreReport, RestoreRun } from './restore-run.ts';
import type { Survey } from './survey.ts';

export interface RestoreDeps {
  readonly vault: Vault;
  /** Opens the store to fill, once the checks have passed. */
  readonly openStore: () => Promise<KmsStore>;
  readonly clock: Clock;
  readonly caller: Caller;
}

/** The store is not empty. */
export class StoreNotEmpty extends Error {
  override readonly name = 'StoreNotEmpty';
}

const BATCH = 500;

/**
 * Fills an empty store with a backup, as one write: a crash leaves nothing or all of it. The audit chain
 * continues that of the backup. It gets a CRITICAL record of the restore, and one for each key that comes
 * back changed.
 *
 * With evidence of later changes, keys and tokens come back in their last known state. Without evidence, keys
 * come back disabled, all tokens are revoked and the signing key is replaced. Otherwise, what was destroyed,
 * disabled or revoked after the backup would work again.
 *
 * @param survey of exactly this archive.
 * @throws StoreNotEmpty, DamagedFile; AppError of the store. Then nothing is restored.
 */
export async function restore(
  deps: RestoreDeps,
  source: ByteSource,
  survey: Survey,
  evidence: EvidenceOfCopy | undefined,
  options: RestoreOptions = {},
): Promise<RestoreReport> {
  const { vault, caller } = deps;
  const time = new Date(deps.clock.now()).toISOString();
  const run = new RestoreRun({ vault, survey, evidence, options, caller, time });
  await using store = await deps.openStore();
  if (!(await store.load(batched(run.entries(source)), survey.secrets.chainKey)))
    throw new StoreNotEmpty('a store exists already');
  return run.report(await store.auditHead());
}

async function* batched(entries: AsyncIterable<LoadEntry>): AsyncGenerator<readonly LoadEntry[]> {
  let batch: LoadEntry[] = [];
  for await (const entry of entries) {
    batch.push(entry);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
