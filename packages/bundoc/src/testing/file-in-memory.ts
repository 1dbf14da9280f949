import type { ReadableFile } from '../engine/files/disk/disk.ts';

/** A file to read whose content is in memory. @param before runs before each read. */
export function fileInMemory(content: Buffer, before: () => void = () => undefined): ReadableFile {
  return {
    bytes: content.length,
    readInto: async (target, offset) => {
      before();
      return content.copy(target, 0, offset);
    },
    [Symbol.dispose]: () => undefined,
  };
}

/** Counts the bytes of the buffers that are to be filled from a file. */
export function countedFile(file: ReadableFile): ReadableFile & { readonly read: number } {
  let read = 0;
  return {
    bytes: file.bytes,
    readInto: (target, offset) => {
      read += target.length;
      return file.readInto(target, offset);
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
    get read() {
      return read;
    },
  };
}
