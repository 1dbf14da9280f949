import { Accounts, BYTE_US } from '@bundoc/shared/admission/account';
import { Turns } from '@bundoc/shared/admission/turns';
import type { BatchQueue } from '@bundoc/shared/runtime/batcher';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** Large documents in one statement. */
const DOCUMENTS_MAX = 32;
/**
 * Maximum sealed bytes that a statement for large documents returns, unless a single document has more. On
 * the wire, and while the client parses them, they take a few times as much.
 */
export const LARGE_BYTES_MAX = 4_194_304;

interface LargeRead {
  readonly share: ShareKey;
  readonly size: number;
}

/**
 * Large documents that wait for a statement. The next one is of the subject that has read fewest bytes, then
 * of its project that has.
 */
export class LargeReads<Read extends LargeRead> implements BatchQueue<Read> {
  readonly #accounts = new Accounts();
  readonly #turns = new Turns<Read>(this.#accounts);

  get size(): number {
    return this.#turns.size;
  }

  add(read: Read): void {
    this.#turns.add(this.#accounts.of(read.share), read);
  }

  take(): Read[] {
    const taken: Read[] = [];
    let bytes = 0;
    for (;;) {
      const next = this.#turns.peek();
      if (next === undefined || taken.length === DOCUMENTS_MAX) return taken;
      bytes += next.size;
      // No smaller one may overtake the first that does not fit.
      if (bytes > LARGE_BYTES_MAX && taken.length > 0) return taken;
      const account = this.#accounts.of(next.share);
      this.#turns.take(account, next);
      this.#accounts.charge(account, next.size * BYTE_US);
      taken.push(next);
    }
  }
}
