import type { HandleIndex } from './handle-index.ts';
import { comparePlaces, type FramePlace, type Place } from './layout.ts';
import type { LogScan } from './scan.ts';
import type { SuspectFrame } from './scan-frames.ts';

/** What is known of a log without any key. The writer keeps it current. */
export class LogContent {
  readonly index: HandleIndex;
  /** The last lost frame whose handles are unknown. */
  hole: FramePlace | undefined;
  /** Segments whose headers have lost the handles that they remembered. */
  readonly lostLists: readonly number[];
  /** Damaged frames. */
  readonly suspects: readonly SuspectFrame[];

  constructor(scan: LogScan) {
    this.index = scan.index;
    this.hole = scan.hole;
    this.lostLists = scan.lostLists;
    this.suspects = scan.suspects;
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
}
