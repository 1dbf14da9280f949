import assert from 'node:assert/strict';
import { FrameWriter, type Repeat } from './frame.ts';
import { HASH_BYTES, TAG_BYTES } from './layout.ts';
import type { Attached, Sending } from './log-turns.ts';
import { aadStart, type PartSeal, partKey, sealPart } from './part-seal.ts';
import type { ActiveSegment } from './segment-writer.ts';

const NO_TAG = Buffer.alloc(TAG_BYTES);
/** The previous hash of a log's first frame. */
export const NO_HASH = Buffer.alloc(HASH_BYTES);

export interface SealedFrame {
  /** Padded to blocks; a view of the buffer in which it was composed. */
  readonly frame: Buffer;
  readonly hash: Buffer;
  /** Handle and tag of each part, in the order of the group. */
  readonly directory: readonly Repeat[];
}

/**
 * Seals the next frame of a segment. Each number is sealed at most once: the caller uses it up, whatever the
 * outcome of the frame.
 *
 * @param buffer in which the frame is composed.
 * @param group empty for the frame that ends a segment.
 */
export function sealFrame(
  buffer: Buffer,
  active: ActiveSegment,
  storageId: Buffer,
  group: readonly Sending[],
): SealedFrame {
  const start = {
    number: active.block,
    previousNumber: active.lastFrame,
    segment: active.number,
    segmentId: active.id,
    previousHash: active.lastHash,
    repeats: active.lastParts,
  };
  const writer = new FrameWriter(buffer, start, group.length);
  const directory = group.map((sending) => ({
    handle: sending.attached.source.handle,
    tag: sealOne(writer, active, storageId, sending),
  }));
  return { ...writer.finish(), directory };
}

function sealOne(writer: FrameWriter, active: ActiveSegment, storageId: Buffer, sending: Sending): Buffer {
  const { attached, part, kind, chunks, plaintext, bytes } = sending;
  const { handle } = attached.source;
  const { keyVersion } = part;
  const room = writer.part({ handle, kind, chunks, keyVersion, bytes, previous: attached.newest });
  if (kind === 'gone') NO_TAG.copy(room.tag);
  else {
    const seal = sealOf(active, storageId, attached, keyVersion);
    sealPart(seal, active.block, room.head, plaintext, room);
  }
  return Buffer.from(room.tag);
}

/** Derived once for each project and use of a segment. */
function sealOf(active: ActiveSegment, storageId: Buffer, attached: Attached, version: number): PartSeal {
  const known = attached.seal;
  if (known !== undefined && known.version === version && known.segmentId === active.id) return known.seal;
  const { handle, project, keys } = attached.source;
  const key = partKey(keys, version, active.id, handle);
  assert(key !== undefined, 'the current version has a key');
  const seal = { key, aad: aadStart(project, storageId, active.id) };
  attached.seal = { segmentId: active.id, version, seal };
  return seal;
}
