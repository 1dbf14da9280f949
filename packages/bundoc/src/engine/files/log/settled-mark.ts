import { join } from 'node:path';
import {
  decodeSettled,
  encodeSettled,
  SETTLED_BYTES,
  SETTLED_FILE,
  type SegmentUse,
} from '@bundoc/shared/contract/log-folder';
import type { LogDisk } from './ports.ts';

const TEMPORARY = '.tmp';

/**
 * Durably records that every project in the log has a durable folder, as of a segment. A newer segment makes
 * the mark stale.
 */
export async function writeSettled(disk: LogDisk, directory: string, newest: SegmentUse): Promise<void> {
  const path = join(directory, SETTLED_FILE);
  await disk.remove(path + TEMPORARY);
  await disk.createFile(path + TEMPORARY, encodeSettled(newest));
  await disk.rename(path + TEMPORARY, path);
  await disk.syncDirectory(directory);
}

/** The number of the segment that the mark names; 0 when it is missing or unreadable. */
export async function readSettled(disk: LogDisk, directory: string): Promise<number> {
  if ((await disk.list(directory))?.includes(SETTLED_FILE) !== true) return 0;
  try {
    const file = await disk.openLogFile(join(directory, SETTLED_FILE));
    try {
      return decodeSettled(await file.read(0, SETTLED_BYTES + 1))?.number ?? 0;
    } finally {
      await file.close();
    }
  } catch {
    return 0;
  }
}
