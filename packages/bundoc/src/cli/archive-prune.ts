import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { planPrune, prune } from '../engine/files/archive/prune.ts';
import { isoOf, type StorageArchive } from './archive-place.ts';
import { MIB } from './transfer-bar.ts';

interface PruneInput {
  /** Milliseconds since 1970. */
  readonly limitMs: number;
  readonly dryRun: boolean;
}

/**
 * `bundoc archive prune`: deletes what no moment from the limit on needs. It may be interrupted and repeated.
 *
 * @throws ArchiveDamaged; ObjectStorageError.
 */
export async function pruneArchive(
  { objects, storage, storageId, reader }: StorageArchive,
  { limitMs, dryRun }: PruneInput,
  options: JsonOption,
): Promise<void> {
  const plan = await planPrune(reader, limitMs);
  const amount = `${counted(plan.objects.length, 'object')}, ${(plan.bytes / MIB).toFixed(1)} MiB`;
  const from = plan.keptFromMs === undefined ? null : isoOf(plan.keptFromMs);
  const kept = from === null ? 'no round had ended by the limit' : `each moment from ${from} on stays`;
  const what = `${amount} of storage ${storage} in ${objects.name}; ${kept}`;
  if (!dryRun && plan.objects.length > 0) {
    console.error(`bundoc: deleting ${what}`);
    using bar = createProgress('{bar} {value}/{total} objects, {eta_formatted} left');
    bar.start(plan.objects.length);
    let deleted = 0;
    await prune(objects, storageId, plan, () => bar.update(++deleted));
  }
  const facts = {
    archive: objects.name,
    storage,
    limit: isoOf(limitMs),
    objects: plan.objects.length,
    bytes: plan.bytes,
    kept_from: from,
    dry_run: dryRun,
  };
  print(options, facts, () => [`${dryRun ? 'would delete' : 'deleted'} ${what}`]);
}
