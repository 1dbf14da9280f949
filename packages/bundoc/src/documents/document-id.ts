import { AppError } from '@bundoc/shared/contract/app-error';
import { documentIdSchema } from '@bundoc/shared/contract/documents';
import { fillRandom, smallRandom } from '@bundoc/shared/crypto/random';
import { v7 as uuidv7 } from 'uuid';

/** Checks a document id from a body; ids in a path are checked with the path. @throws `invalid_document`. */
export function documentIdOfBody(id: string): string {
  const result = documentIdSchema.safeParse(id);
  if (result.success) return result.data;
  throw new AppError('invalid_document', {
    detail: `"_id" ${result.error.issues[0]?.message ?? 'is not valid'}`,
  });
}

let lastMs = 0;
let seq = 0;
const random = Buffer.alloc(16);

/**
 * A new id that sorts by time (UUIDv7, RFC 9562). Within a millisecond it counts up from a random start, by
 * method 1 of section 6.2. Its time is never earlier than that of the id before it.
 */
export function newDocumentId(): string {
  const nowMs = Date.now();
  if (nowMs > lastMs) {
    lastMs = nowMs;
    seq = smallRandom(4).readUInt32BE() >>> 1;
  } else {
    seq++;
  }
  fillRandom(random);
  return uuidv7({ random, msecs: lastMs, seq });
}
