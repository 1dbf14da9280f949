import { beginsAt } from './frame.ts';
import { BLOCK_BYTES, type FramePlace, type Place } from './layout.ts';
import { type ReadableLog, SEGMENT_BYTES, type StuckFiles } from './log-api.ts';
import { LogContent } from './log-content.ts';
import { PartReader } from './parts.ts';
import type { ReadableLogDisk } from './ports.ts';
import { type LiveSegment, lostLog, scanLog } from './scan.ts';
import type { SuspectFrame } from './scan-frames.ts';
import type { SealedPart } from './sealed-part.ts';
import { listStuck } from './stuck-parts.ts';

export interface LogViewOptions {
  readonly disk: ReadableLogDisk;
  /** `data/log`, which need not exist. */
  readonly directory: string;
  readonly storageId: Buffer;
  /** Length of a segment's file. */
  readonly segmentBytes?: number;
  /** True when the storage has had a log: a missing one was lost. */
  readonly mustExist?: boolean;
  /**
   * Also reads the frames of segments with an undamaged index, so that {@link LogView.damage} lists every
   * damaged frame.
   */
  readonly everyFrame?: boolean;
}

/**
 * Scans a log without any key, and changes nothing. The caller holds the lock of the data folder, so no other
 * process writes. Only one segment at a time is in memory.
 *
 * @throws LogDamaged when the log, or a live segment, is missing or belongs to another storage.
 */
export async function readLog(options: LogViewOptions): Promise<LogView> {
  const { disk, directory, storageId, segmentBytes = SEGMENT_BYTES, everyFrame = false } = options;
  const scan = await scanLog(disk, directory, storageId, segmentBytes, everyFrame);
  if (options.mustExist === true && scan.nextNumber === 1) throw lostLog(directory);
  const segments = new Map(scan.live.map((segment) => [segment.number, segment]));
  const firstLive = scan.live[0]?.number ?? scan.nextNumber;
  const reader = () => new PartReader(disk, segments);
  const content = new LogContent(scan);
  const stuck = await listStuck(disk, directory);
  return new LogView(content, { live: scan.live, firstLive, reader }, stuck);
}

interface ViewedSegments {
  /** The live segments, oldest first. */
  readonly live: readonly LiveSegment[];
  /** Segments before this one were freed. */
  readonly firstLive: number;
  reader(): PartReader;
}

/** A scanned log. */
export class LogView implements ReadableLog {
  readonly #content: LogContent;
  readonly #segments: ViewedSegments;
  readonly stuck: StuckFiles;

  constructor(content: LogContent, segments: ViewedSegments, stuck: StuckFiles) {
    this.#content = content;
    this.#segments = segments;
    this.stuck = stuck;
  }

  /** Segments before this one were freed. */
  get firstLive(): number {
    return this.#segments.firstLive;
  }

  get handles(): IterableIterator<string> {
    return this.#content.index.handlesFrom(this.firstLive);
  }

  /** Damaged frames, and the handles with parts in them. */
  get suspects(): readonly SuspectFrame[] {
    return this.#content.suspects;
  }

  /** A sentence for each damaged frame, and one for lost frames of unknown projects. */
  get damage(): readonly string[] {
    const { hole, lostLists, suspects } = this.#content;
    const lists = lostLists.map(
      (segment) =>
        `segment ${segment} of the log has lost the last commits that it remembered: projects without a later one are damaged`,
    );
    const frames = suspects
      .filter(({ handles }) => handles.length > 0)
      .map(
        ({ segment, frame, handles }) =>
          `segment ${segment}, frame ${frame} of the log is damaged; it has parts of ${formatHandles(handles)}`,
      );
    const sentences = [...lists, ...frames];
    if (hole === undefined) return sentences;
    return [
      ...sentences,
      `segment ${hole.segment} of the log has lost frames up to frame ${hole.frame}; their projects are unknown`,
    ];
  }

  newest(handle: string): Place | undefined {
    return this.#content.index.newest(handle);
  }

  isUncovered(handle: string): boolean {
    return this.#content.isUncovered(handle);
  }

  isDoubtful(handle: string, covered: FramePlace | undefined): boolean {
    return this.#content.isDoubtful(this.newest(handle), covered);
  }

  reader(): PartReader {
    return this.#segments.reader();
  }

  /**
   * Every readable part of these handles, oldest first, even without a later part that links to it. Only one
   * segment at a time is in memory; use each part before requesting the next.
   */
  async *partsOf(handles: ReadonlySet<string>): AsyncGenerator<SealedPart> {
    for (const segment of this.#segments.live) {
      await using reader = this.reader();
      const bytes = await reader.preload(segment);
      const end = segment.end?.frame ?? bytes.length / BLOCK_BYTES - 1;
      for (let frame = segment.firstFrame; frame <= end; frame++) {
        if (!beginsAt(bytes, frame, segment.id)) continue;
        for (const handle of handles) {
          const part = await reader.read(handle, { segment: segment.number, frame });
          if (part !== undefined) yield part;
        }
      }
    }
  }
}

function formatHandles(handles: readonly string[]): string {
  return handles.length === 1 ? `handle ${handles[0]}` : `handles ${handles.join(', ')}`;
}
