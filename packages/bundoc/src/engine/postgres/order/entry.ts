import { encodePosition, POSITION_BYTES } from '../../../values/key.ts';
import { ALWAYS } from '../../port/index-port.ts';

/** A document's keys in one index: one or more, or more than an index stores. */
export type Keys = readonly string[] | 'too many';

/**
 * An entry of an ordered index. It counts only while the living document that was created at `createdSeq` has
 * exactly this `seq`. Who uses an entry checks that.
 */
export interface OrderEntry {
  /** The key and `createdSeq`: units up to 0xff, at most {@link PLACE_UNITS_MAX}. Unique in a run. */
  readonly place: string;
  readonly createdSeq: number;
  /** Where the document got these keys. */
  readonly seq: number;
  /** The document has several entries, or too many keys. */
  readonly isMultiple: boolean;
}

/** Four fields of 512 units and a digest of 16 each, and the creation position. */
export const PLACE_UNITS_MAX = 4 * (512 + 16) + POSITION_BYTES;

/** The entries of a document, in the order of its keys. */
export function entriesOf(createdSeq: number, seq: number, keys: Keys): OrderEntry[] {
  const position = encodePosition(createdSeq);
  const isMultiple = keys === 'too many' || keys.length > 1;
  const list = keys === 'too many' ? [ALWAYS.low] : keys;
  return list.map((key) => ({ place: key + position, createdSeq, seq, isMultiple }));
}
