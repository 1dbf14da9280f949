import type { LogDisk } from '../engine/files/log/ports.ts';

/** The writes of frames on a disk, which wait until they are released. */
export interface HeldLogWrites {
  isHeld: boolean;
  readonly waiting: number;
  releaseOne(): void;
}

/** Call it before the log is opened. */
export function holdLogWrites(disk: LogDisk): HeldLogWrites {
  const { openLogFile } = disk;
  const held: (() => void)[] = [];
  const control = {
    isHeld: false,
    get waiting() {
      return held.length;
    },
    releaseOne: () => held.shift()?.(),
  };
  disk.openLogFile = async (path) => {
    const file = await openLogFile.call(disk, path);
    return {
      ...file,
      writeDurably: async (offset, bytes) => {
        if (control.isHeld) await new Promise<void>((resolve) => held.push(resolve));
        return file.writeDurably(offset, bytes);
      },
    };
  };
  return control;
}
