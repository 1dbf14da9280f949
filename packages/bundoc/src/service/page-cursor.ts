import { AppError } from '@bundoc/shared/contract/app-error';
import type { Cursors } from '../crypto/sealed-cursor.ts';
import type { Position } from '../engine/port.ts';

/**
 * What a page's cursor holds.
 *
 * @param context all that decides which page follows on which: a cursor of one list is no cursor of another.
 * @throws AppError `invalid_cursor` for one that was not made here, or of another context.
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

/** A cursor of a list in the order of creation. */
export function sealPositionCursor(cursors: Cursors, context: readonly string[], position: Position): string {
  const bytes = Buffer.alloc(POSITION_BYTES);
  bytes.writeUIntBE(position, 0, POSITION_BYTES);
  return cursors.seal(context, bytes);
}

/** @throws AppError as {@link openPageCursor} does. */
export function openPositionCursor(cursors: Cursors, context: readonly string[], cursor: string): Position {
  return openPageCursor(cursors, context, cursor).readUIntBE(0, POSITION_BYTES);
}
