/**
 * Keeps the text with the receipts of BunKMS (docs/formats/kms-receipts.md). The storage is untrusted: the
 * text may be anything of at most {@link RECEIPTS_BYTES_MAX}.
 */
export interface ReceiptStore {
  /** The stored text; undefined when there is none. @throws AppError of the storage. */
  read(): Promise<string | undefined>;
  /**
   * Replaces the text atomically. A resolved promise has made it durable; a rejected one may have.
   *
   * @param textOf makes the text from the present one, under its lock where several processes write. It gets
   *   undefined when there is none, or only this process writes.
   * @throws AppError of the storage.
   */
  write(textOf: (present: string | undefined) => string): Promise<void>;
}

/** A longer text is not read. */
export const RECEIPTS_BYTES_MAX = 65_536;
