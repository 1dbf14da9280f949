import { join } from 'node:path';
import { encodeSettled, SETTLED_FILE, type SegmentUse } from '@bundoc/shared/contract/log-folder';
import type { LogDisk } from './ports.ts';

const TEMPORARY = '.tmp';

/**
 * Says durably that every project which the log knows has a durable folder, as of a segment. A newer segment
 * makes the mark stale by itself.
 */
export async function writeSettled(disk: LogDisk, directory: string, newest: SegmentUse): Promise<void> {
  const path = join(directory, SETTLED_FILE);
  await disk.remove(path + TEMPORARY);
  await disk.createFile(path + TEMPORARY, encodeSettled(newest));
  await disk.rename(path + TEMPORARY, path);
  await disk.syncDirectory(directory);
}
