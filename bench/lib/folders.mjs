// Disk usage of folders.

import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const BLOCK_BYTES = 512;
const DROP_CACHES = '/proc/sys/vm/drop_caches';

/** Bytes of blocks and the number of inodes of a folder and its content, after a sync. */
export function usageOfFolder(directory, { except = [] } = {}) {
  if (!existsSync(directory)) return { bytes: 0, inodes: 0 };
  // Blocks of recent writes may not be allocated yet.
  execFileSync('sync', process.platform === 'linux' ? ['-f', directory] : []);
  const sum = { bytes: 0, inodes: 0 };
  const add = (path) => {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return; // The entry has been removed.
    sum.bytes += stat.blocks * BLOCK_BYTES;
    sum.inodes++;
    if (stat.isDirectory())
      for (const name of namesIn(path))
        if (path !== directory || !except.includes(name)) add(join(path, name));
  };
  add(directory);
  return sum;
}

/** Drops the page cache of the kernel. @returns false when that is not allowed. */
export function dropPageCache() {
  try {
    execFileSync('sync');
    writeFileSync(DROP_CACHES, '3\n');
    return true;
  } catch {
    return false;
  }
}

function namesIn(path) {
  try {
    return readdirSync(path);
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
}
