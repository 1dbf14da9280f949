import { AppError } from '@bundoc/shared/contract/app-error';
import type { Cursors } from '../crypto/sealed-cursor.ts';

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
