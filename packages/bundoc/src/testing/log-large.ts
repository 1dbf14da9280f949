import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { FrameWriter, frameBytes } from '../engine/files/log/frame.ts';
import { BLOCK_BYTES, blocksOf, FRAME_BODY_BYTES_MAX, HASH_BYTES } from '../engine/files/log/layout.ts';
import { SEGMENT_BYTES } from '../engine/files/log/log-api.ts';
import { type SegmentIndex, withPart } from '../engine/files/log/scan-frames.ts';
import { type Cut, encodeHeader } from '../engine/files/log/segment-header.ts';

/**
 * Writes a log of full segments, each frame one large part, whose bodies are zeros: the files are sparse, so
 * that a log of 1 GiB takes a few MiB of disk. Nothing in it opens.
 *
 * @returns how many frames it has.
 */
export function writeLargeLog(
  directory: string,
  storageId: Buffer,
  segments: number,
  handle: string,
): number {
  mkdirSync(directory, { recursive: true });
  const frame = frameBytes(1, 1, FRAME_BODY_BYTES_MAX);
  const buffer = Buffer.alloc(blocksOf(frame) * BLOCK_BYTES);
  let cut: Cut | undefined;
  let index: SegmentIndex = new Map();
  let previous: { segment: number; frame: number; tag: Buffer } | undefined;
  let frames = 0;
  for (let number = 1; number <= segments; number++) {
    const id = randomBytes(16);
    const file = openSync(join(directory, String(number).padStart(8, '0')), 'wx', 0o600);
    ftruncateSync(file, SEGMENT_BYTES);
    const first = { storageId, number, id, firstLive: 1, cut, hole: undefined, forgotten: 0 };
    const header = encodeHeader(first, [...index.values()], Buffer.alloc(0));
    writeSync(file, header, 0, header.length, 0);
    index = new Map();
    let before = {
      number: 0,
      hash: cut?.hash ?? Buffer.alloc(HASH_BYTES),
      tag: undefined as Buffer | undefined,
    };
    for (let at = header.length / BLOCK_BYTES; at * BLOCK_BYTES + buffer.length <= SEGMENT_BYTES; ) {
      const tag = randomBytes(16);
      const repeats = before.tag === undefined ? [] : [{ handle, tag: before.tag }];
      const start = { number: at, previousNumber: before.number, segment: number, segmentId: id };
      const writer = new FrameWriter(buffer, { ...start, previousHash: before.hash, repeats }, 1);
      const bytes = FRAME_BODY_BYTES_MAX;
      const kind = 'data';
      const room = writer.part({ handle, kind, chunks: 0, keyVersion: 1, bytes, previous });
      tag.copy(room.tag);
      room.body.fill(0);
      const made = writer.finish();
      const end = made.frame.length - 2 * BLOCK_BYTES;
      writeSync(file, made.frame, 0, BLOCK_BYTES, at * BLOCK_BYTES);
      writeSync(file, made.frame, end, 2 * BLOCK_BYTES, at * BLOCK_BYTES + end);
      const hash = Buffer.from(made.hash);
      previous = { segment: number, frame: at, tag };
      withPart(index, { handle, kind, bytes }, previous);
      cut = { segment: number, segmentId: id, frame: at, hash };
      before = { number: at, hash, tag };
      at += made.frame.length / BLOCK_BYTES;
      frames++;
    }
    closeSync(file);
  }
  return frames;
}
