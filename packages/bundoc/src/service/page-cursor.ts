import { AppError } from '@bundoc/shared/contract/app-error';
import type { Cursors } from '../crypto/sealed-cursor.ts';
import type { Position } from '../engine/port/port.ts';

/**
 * Opens the cursor of a page.
 *
 * @param context everything that determines the sequence of pages; a cursor is only valid for its own list.
 * @throws AppError `invalid_cursor` for a cursor that is forged, or from another context.
 */
export function openPageCursor(cursors: Cursors, context: readonly string[], cursor: string): Buffer {
  const plaintext = cursors.open(context, cursor);
  if (plaintext === undefined)
    throw new AppError('invalid_cursor', {
      detail: 'a cursor must be the "next_cursor" of an answer to the same request',
    });
  return plaintext;
}

const POSITION_BYTES = 6;

/** A cursor of a list in creation order. */
export function sealPositionCursor(cursors: Cursors, context: readonly string[], position: Position): string {
  const bytes = Buffer.alloc(POSITION_BYTES);
  bytes.writeUIntBE(position, 0, POSITION_BYTES);
  return cursors.seal(context, bytes);
}

/** @throws AppError as {@link openPageCursor} does. */
export function openPositionCursor(cursors: Cursors, context: readonly string[], cursor: string): Position {
  return openPageCursor(cursors, context, cursor).readUIntBE(0, POSITION_BYTES);
}
