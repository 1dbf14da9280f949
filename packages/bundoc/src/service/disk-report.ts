import { resolve } from 'node:path';
import type { AppError } from '@bundoc/shared/contract/app-error';
import { freeBytesOf } from '@bundoc/shared/files/free-bytes';
import type { Logger } from '@bundoc/shared/logs/logger';
import { cachedCheck } from '@bundoc/shared/runtime/cached-check';
import type { Clock } from '@bundoc/shared/runtime/clock';

/** The data folder, and what its file system has left. */
export interface DiskSpace {
  readonly folder: string;
  readonly free_bytes: number;
}

/** What an operator needs to know of the disk once writes are refused. */
export interface DiskReport {
  /** Undefined for a storage without a data folder, and when the system does not say. */
  space(): Promise<DiskSpace | undefined>;
  /** Logs why writes are refused, with the folder and its free space. The log has it once a minute. */
  report(error: AppError): void;
}

const KEPT_MS = 1_000;
const MIB = 1_048_576;

/** @param dataDir undefined for a storage without a data folder. */
export function diskReport(dataDir: string | undefined, clock: Clock, logger: Logger): DiskReport {
  const folder = dataDir === undefined ? undefined : resolve(dataDir);
  // A flood of refused writes asks the system once a second.
  const space = cachedCheck(clock, KEPT_MS, async () => {
    const free = folder === undefined ? undefined : await freeBytesOf(folder).catch(() => undefined);
    return folder === undefined || free === undefined ? undefined : { folder, free_bytes: free };
  });
  const report = async (err: AppError): Promise<void> => {
    const found = await space();
    // In whole MiB: lines that differ in a few bytes would count as different ones.
    const freeMib = found && Math.floor(found.free_bytes / MIB);
    if (folder !== undefined)
      logger.warn({ err, folder, free_mib: freeMib }, 'the data folder cannot be written');
  };
  return { space, report: (error) => void report(error) };
}
