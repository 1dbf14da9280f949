import type { SealedEntry } from './frame.ts';
import type { Place } from './layout.ts';

/**
 * Parts of a handle that were acknowledged are damaged or missing: its project must not be opened as if they
 * had never been.
 */
export class PartsDamaged extends Error {
  override readonly name = 'PartsDamaged';
}

/** A part as it lies in the log, or in a carried file. */
export interface SealedPart {
  readonly place: Place;
  /** The storage whose log it was carried out of; undefined for a part in the log itself. */
  readonly storageId: Buffer | undefined;
  readonly segmentId: Buffer;
  /** The entry with its tag, as it stands in the frame's head. */
  readonly head: Buffer;
  readonly entry: SealedEntry;
  readonly body: Buffer;
}
