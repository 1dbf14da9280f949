import { decodeHead, type Entry, type FrameHead, hashOfFrame, isFrameWhole } from './frame.ts';
import { BLOCK_BYTES, blocksOf, type FramePlace, type Place } from './layout.ts';
import type { Cut, FoundHeader, SegmentIndexEntry } from './segment-header.ts';

/** The parts of a segment, by handle. */
export type SegmentIndex = Map<string, SegmentIndexEntry>;

/** A damaged frame. The opening of a project shows whether its part is damaged. */
export interface SuspectFrame extends FramePlace {
  /** Handles with a part in it; empty when they are unknown. */
  readonly handles: readonly string[];
}

/** The header fields that identify a segment's frames. */
type SegmentStart = Pick<FoundHeader, 'number' | 'id' | 'firstFrame'>;

interface LastFrame {
  readonly number: number;
  readonly hash: Buffer;
  /** Byte range in the segment, with padding. */
  readonly start: number;
  readonly end: number;
}

interface ScannedFrames {
  readonly index: SegmentIndex;
  readonly suspects: readonly SuspectFrame[];
  readonly hole: FramePlace | undefined;
  /** The last valid frame. */
  readonly last: LastFrame | undefined;
}

/**
 * Walks the frames of a segment.
 *
 * A damaged frame was torn by a crash if no frame follows it, because one frame is in flight at a time.
 * Otherwise it was acknowledged, and its handles are listed from its own head or from the copy in the next
 * frame. Each place goes into the index as if it were undamaged; reading a damaged part fails.
 *
 * @param end the last valid frame, for a segment that another follows.
 */
export function scanFrames(bytes: Buffer, header: SegmentStart, end: Cut | undefined): ScannedFrames {
  const index: SegmentIndex = new Map();
  const segment = header.number;
  const suspects: SuspectFrame[] = [];
  let hole: FramePlace | undefined;
  let last: LastFrame | undefined;
  let at = header.firstFrame;
  while (end === undefined || at <= end.frame) {
    const head = headOf(bytes, header, at);
    const whole = head !== undefined && isFrameWhole(bytes, at * BLOCK_BYTES, head);
    const follower = whole ? undefined : nextHead(bytes, header, at, end);
    const isAcknowledged = follower !== undefined || end !== undefined;
    if (head === undefined) {
      if (!isAcknowledged) break;
      const lost = follower?.previousNumber ?? end?.frame ?? at;
      // With several damaged frames in a row, the handles of all but the last are unknown.
      if (follower === undefined) hole = { segment, frame: lost };
      else if (lost > at) hole = { segment, frame: lost - 1 };
      const repeats = follower?.repeats ?? [];
      suspects.push({ segment, frame: lost, handles: repeats.map(({ handle }) => handle) });
      for (const { handle, tag } of repeats)
        withPart(index, { handle, kind: 'data', bytes: 0 }, { segment, frame: lost, tag });
      if (follower === undefined) break;
      at = follower.number;
      continue;
    }
    if (!whole && !isAcknowledged) break;
    const isLinked = head.previousNumber !== last?.number || head.previousHash.equals(last.hash);
    if (!whole || !isLinked)
      suspects.push({ segment, frame: at, handles: head.entries.map(({ handle }) => handle) });
    for (const entry of head.entries) withPart(index, entry, { segment, frame: at, tag: entry.tag });
    const start = at * BLOCK_BYTES;
    at += blocksOf(head.bytes);
    last = {
      number: head.number,
      hash: hashOfFrame(bytes, start, head),
      start,
      end: Math.min(at * BLOCK_BYTES, bytes.length),
    };
  }
  return { index, suspects, hole, last };
}

/** Adds a part to the index of its segment. */
export function withPart(
  index: SegmentIndex,
  { handle, kind, bytes }: Pick<Entry, 'handle' | 'kind' | 'bytes'>,
  place: Place,
): void {
  const known = index.get(handle);
  index.set(handle, {
    handle,
    isGone: kind === 'gone',
    firstFrame: known?.firstFrame ?? place.frame,
    last: place,
    bytes: (known?.bytes ?? 0) + bytes,
  });
}

/** The head of this segment's frame at a block. */
function headOf(bytes: Buffer, header: SegmentStart, block: number): FrameHead | undefined {
  const head = decodeHead(bytes, block * BLOCK_BYTES);
  return head !== undefined && head.number === block && head.segmentId.equals(header.id) ? head : undefined;
}

function nextHead(
  bytes: Buffer,
  header: SegmentStart,
  after: number,
  end: Cut | undefined,
): FrameHead | undefined {
  const to = Math.min(end?.frame ?? Number.POSITIVE_INFINITY, Math.floor(bytes.length / BLOCK_BYTES) - 1);
  for (let block = after + 1; block <= to; block++) {
    const head = headOf(bytes, header, block);
    if (head !== undefined) return head;
  }
  return undefined;
}
