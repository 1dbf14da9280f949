import type { SealedEntry } from './frame.ts';
import type { Place } from './layout.ts';

/** Acknowledged parts of a handle are damaged or missing, so its project must not open without them. */
export class PartsDamaged extends Error {
  override readonly name = 'PartsDamaged';
}

/** A part in the log, or in a carried file. */
export interface SealedPart {
  readonly place: Place;
  /** The storage of the log that it was carried from; undefined for a part in the log. */
  readonly storageId: Buffer | undefined;
  readonly segmentId: Buffer;
  /** The entry with its tag, as in the frame's head. */
  readonly head: Buffer;
  readonly entry: SealedEntry;
  readonly body: Buffer;
}
