import { hasCode } from '@bundoc/shared/contract/app-error';
import { decodeCarried } from './log/carried-file.ts';
import type { Log } from './log/log.ts';
import type { PartKeys } from './log/part-seal.ts';
import { openSealedPart, type PartReader } from './log/parts.ts';
import { PartsDamaged, type SealedPart } from './log/sealed-part.ts';

/** Maximum of handles that are tried, because each restored project tries them all. */
const TRIED_MAX = 1_000;

/**
 * Handles that have parts of a project in the log, but no folder: somebody removed the folder, or moved it
 * out of the storage. Only the project's key says that the parts are its own, in the version that sealed the
 * newest of them.
 */
export async function findOrphans(
  log: Log,
  storageId: Buffer,
  projectOf: ReadonlyMap<string, string>,
  { project, keys }: { readonly project: string; readonly keys: PartKeys },
): Promise<string[]> {
  const unknown = new Set<string>();
  for (const handle of log.handles)
    if (!projectOf.has(handle) && log.isUncovered(handle)) unknown.add(handle);
  for (const handle of log.stuck.handles) if (!projectOf.has(handle)) unknown.add(handle);
  const orphans: string[] = [];
  await using reader = log.reader();
  for (const handle of [...unknown].slice(0, TRIED_MAX)) {
    try {
      const part = await newestPart(log, reader, handle);
      if (part === undefined || part.entry.kind === 'gone') continue;
      openSealedPart(project, storageId, keys, part);
      orphans.push(handle);
    } catch (error) {
      // A part of another project, or a damaged one.
      if (!(error instanceof PartsDamaged) && !hasCode(error, 'storage_unavailable')) throw error;
    }
  }
  return orphans;
}

async function newestPart(log: Log, reader: PartReader, handle: string): Promise<SealedPart | undefined> {
  const place = log.newest(handle);
  const inLog = place && (await reader.read(handle, place));
  if (inLog !== undefined) return inLog;
  const carried = (await log.stuck.read(handle)).map(decodeCarried);
  return carried
    .toSorted((one, other) => one.segment - other.segment)
    .at(-1)
    ?.parts.at(-1);
}
