import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** `statfs(2)` of a file system in memory. */
const TMPFS = 0x01021994;
/** What all tests that run at a time keep in files is a tenth of this. */
const ROOM_BYTES_MIN = 4_294_967_296;
/** Of the machine, with the processes of the tests beside their files. */
const MEMORY_BYTES_MIN = 2 * ROOM_BYTES_MIN;
const NAME = /^bundoc-tests-(\d+)-/;

export interface MemoryFolderOptions {
  /** Where the system keeps files in memory. */
  readonly root?: string;
  /** Memory that processes could still take. */
  readonly availableBytes?: number;
}

/**
 * A new folder in memory for temporary files: tests wait for the syncs of a disk longer than they compute. It
 * is open to all users, like `/tmp`. Folders of runs that were killed are removed first.
 *
 * @returns undefined where there is no such place, where it has little room, or where programs cannot run.
 */
export function memoryFolder(options: MemoryFolderOptions = {}): string | undefined {
  const { root = '/dev/shm', availableBytes = process.availableMemory() } = options;
  try {
    removeLeftBehind(root);
    const { type, bsize, bavail } = statfsSync(root);
    if (type !== TMPFS || bsize * bavail < ROOM_BYTES_MIN || availableBytes < MEMORY_BYTES_MIN)
      return undefined;
    const folder = mkdtempSync(join(root, `bundoc-tests-${process.pid}-`));
    chmodSync(folder, 0o1777);
    if (runsPrograms(folder)) return folder;
    rmSync(folder, { recursive: true });
  } catch {
    // Not there, or not for this user.
  }
  return undefined;
}

function removeLeftBehind(root: string): void {
  for (const name of readdirSync(root)) {
    const pid = Number(NAME.exec(name)?.[1] ?? process.pid);
    if (pid !== process.pid && !isRunning(pid)) rmSync(join(root, name), { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Tests write programs, which a mount with `noexec` does not run. */
function runsPrograms(folder: string): boolean {
  const program = join(folder, 'program');
  writeFileSync(program, '#!/bin/sh\n', { mode: 0o755 });
  const { status } = spawnSync(program);
  rmSync(program);
  return status === 0;
}
