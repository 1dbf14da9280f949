import { join } from 'node:path';
import { RECEIPTS_BYTES_MAX, type ReceiptStore } from '../../kms/receipt-store.ts';
import { type Disk, replaceFile } from './disk/disk.ts';

/** Below the data folder. */
const RECEIPTS_FILE = 'kms-receipts.json';

/**
 * The receipts of BunKMS in a data folder that this process holds exclusively.
 *
 * @param tmp the folder for unfinished files, which each start empties.
 */
export function receiptsInFolder(disk: Disk, dataDir: string, tmp: string): ReceiptStore {
  const path = join(dataDir, RECEIPTS_FILE);
  return {
    read: async () => (await disk.read(path, RECEIPTS_BYTES_MAX))?.toString(),
    write: (textOf) => replaceFile(disk, tmp, path, Buffer.from(textOf(undefined))),
  };
}
