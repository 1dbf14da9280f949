import type { Position, StoredDocument } from '../../port/port.ts';

/** A row of a document, opened. */
export interface OpenedRow {
  /** Undefined for a row that does not open. */
  readonly seq: Position | undefined;
  readonly name: string;
  /** Sealed bytes. */
  readonly size: number;
  /** Undefined for a row that does not open. */
  readonly id: string | undefined;
  /** Undefined if its bytes do not open; 'unread' if they were not read. */
  readonly document: StoredDocument | 'unread' | undefined;
}
