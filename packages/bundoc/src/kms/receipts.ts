import { setTimeout } from 'node:timers/promises';
import {
  formatReceipt,
  isNewer,
  type KmsReceipt,
  parseReceipt,
  parseReceipts,
  RECEIPTS_MAX,
} from '@bundoc/shared/contract/kms-receipt';
import { CountedLines } from '@bundoc/shared/logs/counted-lines';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, every } from '@bundoc/shared/runtime/clock';
import type { ReceiptStore } from './receipt-store.ts';
import { formatReceipts, parseReceiptsText, ReceiptsUnreadable } from './receipts-text.ts';

export interface ReceiptsOptions {
  readonly store: ReceiptStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Interval of the writes to the storage, milliseconds. */
const SAVE_EVERY_MS = 1_000;
/** How long closing waits for the last write, milliseconds. */
const LAST_SAVE_MS = 2_000;
/** Refused receipts that are remembered. */
const REFUSED_MAX = 16;

/** The receipt of each installation; that of the installation that answered last is last. */
type Newest = Map<KmsReceipt['installation'], KmsReceipt>;

/**
 * The newest receipt of each installation of BunKMS. Bundoc returns them with its requests, so that BunKMS
 * notices when its audit chain no longer holds such a record.
 *
 * The storage gets them at most once a second, and when this is disposed of. No request waits for that. The
 * storage is untrusted: BunKMS judges what it holds. A newer receipt that another node has stored is sent
 * with the next requests, and replaces the own one only as long as BunKMS accepts it.
 */
export class Receipts implements AsyncDisposable {
  readonly #options: ReceiptsOptions;
  readonly #newest: Newest = new Map();
  /** The own receipts, where a stored one is newer. */
  readonly #own: Newest = new Map();
  /** Texts that BunKMS refused. Another node may store one again before BunKMS refuses it there. */
  #refused: readonly string[] = [];
  readonly #lines: CountedLines;
  readonly #timer: Disposable;
  /** Whether the storage may lack a change. */
  #isUnsaved = false;
  #saving: Promise<void> | undefined;

  private constructor(options: ReceiptsOptions) {
    this.#options = options;
    this.#lines = new CountedLines(options);
    this.#timer = every(SAVE_EVERY_MS, () => void this.save());
  }

  /** Reads the stored receipts. Never rejects: without a readable text it begins with none. */
  static async load(options: ReceiptsOptions): Promise<Receipts> {
    const receipts = new Receipts(options);
    try {
      const text = await options.store.read();
      if (text !== undefined)
        for (const receipt of parseReceiptsText(text)) keepNewest(receipts.#newest, receipt);
    } catch (error) {
      options.logger.warn(
        { err: error },
        'the kept receipts of BunKMS cannot be read: beginning without them',
      );
    }
    return receipts;
  }

  /** The number of the newest record of the installation that answered last; undefined without any. */
  get seq(): number | undefined {
    return [...this.#newest.values()].at(-1)?.seq;
  }

  /** Keeps the receipt in a header of an answer, if it is the newest one. Ignores a malformed header. */
  take(header: string | string[] | undefined): void {
    if (header === undefined) return;
    const receipt = typeof header === 'string' ? parseReceipt(header) : undefined;
    if (receipt === undefined) {
      const err = new ReceiptsUnreadable('it is malformed');
      this.#options.logger.warn({ err }, 'the receipt in an answer of BunKMS is ignored');
      return;
    }
    const { installation } = receipt;
    const own = this.#own.get(installation);
    if (!keepNewest(this.#newest, receipt)) {
      if (own !== undefined && isNewer(receipt, own)) this.#own.set(installation, receipt);
      return;
    }
    this.#own.delete(installation);
    this.#isUnsaved = true;
    const [first] = this.#newest.keys();
    if (this.#newest.size > RECEIPTS_MAX && first !== undefined) this.#newest.delete(first);
  }

  /** The header of a request; undefined without a receipt. */
  header(): string | undefined {
    return this.#newest.size === 0 ? undefined : [...this.#newest.values()].map(formatReceipt).join(',');
  }

  /** Forgets the receipts of a header that BunKMS refused. Newer ones stay, and own ones are back. */
  forget(header: string): void {
    const sent = (parseReceipts(header) ?? []).map(formatReceipt);
    this.#refused = [...new Set([...this.#refused, ...sent])].slice(-REFUSED_MAX);
    const forgotten = [...this.#newest.values()].filter((known) => sent.includes(formatReceipt(known)));
    if (forgotten.length === 0) return;
    for (const { installation } of forgotten) {
      const own = this.#own.get(installation);
      this.#own.delete(installation);
      if (own === undefined) this.#newest.delete(installation);
      else this.#newest.set(installation, own);
    }
    this.#isUnsaved = true;
    const records = recordsOf(forgotten);
    this.#lines.say('', '', (counted) =>
      this.#options.logger.error(
        { records, ...counted },
        'BunKMS refuses receipts that Bundoc kept, and Bundoc forgets them: someone may have planted them in the storage',
      ),
    );
  }

  /** Writes what is new to the storage. Never rejects: a failure is logged, and the next call tries again. */
  save(): Promise<void> {
    if (this.#isUnsaved)
      this.#saving ??= this.#save().finally(() => {
        this.#saving = undefined;
      });
    return this.#saving ?? Promise.resolve();
  }

  /** Writes the last receipts, unless the storage does not answer. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer[Symbol.dispose]();
    this.#lines[Symbol.dispose]();
    const saved = (async () => {
      await this.#saving;
      await this.save();
    })();
    await Promise.race([saved, setTimeout(LAST_SAVE_MS, undefined, { ref: false })]);
  }

  async #save(): Promise<void> {
    try {
      await this.#options.store.write((present) => {
        this.#isUnsaved = false;
        const newest = newestOf(present, this.#refused, this.#newest);
        for (const receipt of newest) this.#takeUp(receipt);
        return formatReceipts(newest);
      });
    } catch (error) {
      this.#isUnsaved = true;
      this.#options.logger.warn({ err: error }, 'the receipts of BunKMS were not written; trying again');
    }
  }

  /** Sends a stored receipt that is newer than the own one of its installation. */
  #takeUp(stored: KmsReceipt): void {
    const { installation } = stored;
    const known = this.#newest.get(installation);
    if (known === undefined || !isNewer(stored, known)) return;
    if (!this.#own.has(installation)) this.#own.set(installation, known);
    this.#newest.set(installation, stored);
  }
}

/** Their records as an operator names them. The rest of a receipt is not logged. */
export function recordsOf(receipts: readonly KmsReceipt[]): string {
  return receipts
    .map(({ installation, epoch, seq }) => `record ${seq} of installation ${installation}, epoch ${epoch}`)
    .join('; ');
}

/**
 * Keeps `receipt` if it is newer than that of its installation, which becomes the last one. @returns whether
 * it is.
 */
function keepNewest(newest: Newest, receipt: KmsReceipt): boolean {
  const { installation } = receipt;
  const known = newest.get(installation);
  const isKept = known === undefined || isNewer(receipt, known);
  newest.delete(installation);
  newest.set(installation, isKept ? receipt : known);
  return isKept;
}

/** The newest of a stored text, without the refused ones, and of `own`. */
function newestOf(present: string | undefined, refused: readonly string[], own: Newest): KmsReceipt[] {
  const newest: Newest = new Map();
  for (const receipt of present === undefined ? [] : readableIn(present))
    if (!refused.includes(formatReceipt(receipt))) keepNewest(newest, receipt);
  for (const receipt of own.values()) keepNewest(newest, receipt);
  // Only now: a receipt that is refreshed must not be dropped before.
  return [...newest.values()].slice(-RECEIPTS_MAX);
}

/** None in an unreadable text, which is replaced. */
function readableIn(text: string): readonly KmsReceipt[] {
  try {
    return parseReceiptsText(text);
  } catch {
    return [];
  }
}
