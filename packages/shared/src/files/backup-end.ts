import { readSync } from 'node:fs';

// Of a backup (docs/formats/project-backup.md).
const MAGIC = Buffer.from('BUNDOCB1', 'latin1');
const HEAD_BYTES = 29;
const HASH_BYTES = 32;
const BLOCK_HEAD_BYTES = 9;
const [MORE, LAST] = [1, 2];

/**
 * The bytes of `project.json` in the open backup of a project. The documents before it are skipped, and no
 * hash is checked.
 *
 * @returns undefined for a file that is no complete backup.
 */
export function clearPartOfEnd(file: number, bytesMax: number): Buffer | undefined {
  const head = readAt(file, 0, HEAD_BYTES);
  if (head?.subarray(0, MAGIC.length).equals(MAGIC) !== true) return undefined;
  for (let at = HEAD_BYTES + head.readUInt8(HEAD_BYTES - 1) + HASH_BYTES; ; ) {
    const block = readAt(file, at, BLOCK_HEAD_BYTES);
    if (block === undefined) return undefined;
    const [kind, sealedBytes, clearBytes] = [
      block.readUInt8(0),
      block.readUInt32BE(1),
      block.readUInt32BE(5),
    ];
    const clearAt = at + BLOCK_HEAD_BYTES + sealedBytes;
    if (kind === LAST) return clearBytes > bytesMax ? undefined : readAt(file, clearAt, clearBytes);
    if (kind !== MORE) return undefined;
    at = clearAt + clearBytes + HASH_BYTES;
  }
}

/** @returns undefined when the file ends before. */
function readAt(file: number, position: number, length: number): Buffer | undefined {
  const bytes = Buffer.alloc(length);
  return readSync(file, bytes, 0, length, position) === length ? bytes : undefined;
}
