import type { HandleIndex } from './handle-index.ts';
import { comparePlaces, type FramePlace, type Place } from './layout.ts';
import { type BirthText, decodeBirth } from './part-seal.ts';
import type { PartReader } from './parts.ts';
import type { LiveSegment, LogScan } from './scan.ts';
import type { SuspectFrame } from './scan-frames.ts';

/** With more births than this, a whole segment is read at once. */
const PRELOAD_FROM = 32;

/** The live segments and a reader of their parts. */
export interface SegmentsToRead {
  at(number: number): LiveSegment | undefined;
  reader(): PartReader;
}

/** A birth in the log, with its clear content. */
export interface FoundBirth extends BirthText {
  readonly handle: string;
}

/** What is known of a log without any key. The writer keeps it current. */
export class LogContent {
  readonly index: HandleIndex;
  /** The place of each birth, by handle. */
  readonly births: Map<string, FramePlace>;
  /** The last lost frame whose handles are unknown. */
  hole: FramePlace | undefined;
  /** Segments whose headers have lost the handles that they remembered. */
  readonly lostLists: readonly number[];
  /** Damaged frames. */
  readonly suspects: readonly SuspectFrame[];
  readonly #segments: SegmentsToRead;

  constructor(scan: LogScan, segments: SegmentsToRead) {
    this.index = scan.index;
    this.births = new Map(scan.births);
    this.hole = scan.hole;
    this.lostLists = scan.lostLists;
    this.suspects = scan.suspects;
    this.#segments = segments;
  }

  /** Whether a handle has parts that exist only in the log. */
  isUncovered(handle: string): boolean {
    return this.index.oldest(handle) !== undefined;
  }

  /** Whether frames of unknown projects are lost, and no later part of the handle is known. */
  isDoubtful(newest: Place | undefined, covered: FramePlace | undefined): boolean {
    const { hole } = this;
    if (hole === undefined) return false;
    const known = [newest, covered].filter((place) => place !== undefined);
    return known.every((place) => comparePlaces(place, hole) < 0);
  }

  /** The births whose clear text is readable. Reads one segment at a time. */
  async *readBirths(): AsyncGenerator<FoundBirth> {
    const bySegment = new Map<number, [handle: string, place: FramePlace][]>();
    for (const birth of this.births) {
      const { segment } = birth[1];
      const others = bySegment.get(segment);
      if (others === undefined) bySegment.set(segment, [birth]);
      else others.push(birth);
    }
    for (const [number, births] of bySegment) {
      await using reader = this.#segments.reader();
      const segment = this.#segments.at(number);
      if (segment !== undefined && births.length > PRELOAD_FROM) await reader.preload(segment);
      for (const [handle, place] of births) {
        const part = await reader.read(handle, place);
        const birth = part?.entry.kind === 'birth' ? decodeBirth(part.body) : undefined;
        if (birth !== undefined) yield { handle, project: birth.project, projectFile: birth.projectFile };
      }
    }
  }
}
