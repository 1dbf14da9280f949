import type { SimulatedDisk } from './simulated-disk.ts';

/** Runs a task before each read of a log file that is opened from now on. */
export function beforeLogReads(
  disk: SimulatedDisk,
  task: (path: string, offset: number, bytes: number) => Promise<void>,
): void {
  const { openLogFile } = disk;
  disk.openLogFile = async (path) => {
    const file = await openLogFile.call(disk, path);
    const read = async (offset: number, bytes: number) => {
      await task(path, offset, bytes);
      return file.read(offset, bytes);
    };
    return { ...file, read };
  };
}
