import { decodeHead } from '../engine/files/log/frame.ts';
import { BLOCK_BYTES, HASH_BYTES } from '../engine/files/log/layout.ts';
import type { SimulatedDisk } from './simulated-disk.ts';

/** A frame with parts, in a file of the log. */
export interface FrameOnDisk {
  readonly path: string;
  readonly segment: number;
  readonly frame: number;
  readonly handles: readonly string[];
  /** The offset of the last byte of its last body. */
  readonly lastByte: number;
}

/**
 * Frames with parts in the files of a log, in the order of their writes. Freed frames are included.
 */
export function framesOn(disk: SimulatedDisk, directory = '/log'): FrameOnDisk[] {
  const frames: FrameOnDisk[] = [];
  for (const [path, bytes] of disk.files()) {
    if (!/^\d{8}$/.test(path.slice(directory.length + 1))) continue;
    for (let frame = 1; frame * BLOCK_BYTES < bytes.length; frame++) {
      const head = decodeHead(bytes, frame * BLOCK_BYTES);
      if (head === undefined || head.number !== frame || head.entries.length === 0) continue;
      const handles = head.entries.map(({ handle }) => handle);
      const lastByte = frame * BLOCK_BYTES + head.bytes - HASH_BYTES - 1;
      frames.push({ path, segment: head.segment, frame, handles, lastByte });
    }
  }
  return frames.sort((a, b) => a.segment - b.segment || a.frame - b.frame);
}

/** Damages one byte of a file. @param offset from its end, if it is negative. */
export function flip(disk: SimulatedDisk, path: string, offset: number): void {
  const bytes = Buffer.from(disk.files().get(path) ?? []);
  const at = offset < 0 ? bytes.length + offset : offset;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  disk.tamper(path, bytes);
}
