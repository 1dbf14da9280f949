import { createHmac, type KeyObject, timingSafeEqual } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { formatReceipt, type KmsReceipt, parseReceipts } from '@bundoc/shared/contract/kms-receipt';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import type { ChainHead } from '../records/chain.ts';
import type { StoreTrust } from './store-trust.ts';

/** Why a header is refused. */
type Reason = 'malformed' | 'forged';

export interface ReceiptsOptions {
  readonly chainKey: KeyObject;
  readonly trust: Pick<StoreTrust, 'epoch' | 'has' | 'lacks' | 'lacksRestore' | 'check'>;
  readonly metrics: {
    readonly invalidReceipts: { inc(labels: { readonly reason: Reason }): void };
  };
}

/**
 * Makes receipts of records, and requires the records of those that come back (docs/formats/kms-receipts.md).
 * A receipt is authenticated with a key that is derived from the key of the chain. So a client can only
 * return what BunKMS has given out.
 */
export class Receipts {
  readonly #options: ReceiptsOptions;
  readonly #key: KeyObject;
  readonly #installation: string;

  constructor(options: ReceiptsOptions) {
    this.#options = options;
    this.#key = deriveKey(options.chainKey, 'bunkms/receipt/v1');
    this.#installation = createHmac('sha256', this.#key).update('installation').digest('hex').slice(0, 16);
  }

  /** The receipt of a record that is in the chain. */
  make({ seq, hash }: ChainHead): string {
    const receipt = { installation: this.#installation, epoch: this.#options.trust.epoch, seq, hash };
    return formatReceipt({ ...receipt, mac: this.#macOf(receipt) });
  }

  /**
   * Requires the records of receipts that a client returns. Receipts of other installations say nothing, and
   * neither do those from before the latest restore.
   *
   * @param header the value of the request's header, if it has one.
   * @throws AppError `receipt_invalid` for a malformed or forged one; `sealed`, and ends the trust, when the
   *   chain lacks a record.
   */
  async require(header: string | string[] | undefined): Promise<void> {
    if (header === undefined) return;
    const receipts = parseReceipts(String(header));
    if (receipts === undefined) throw this.#invalid('malformed');
    for (const receipt of receipts)
      if (receipt.installation === this.#installation) await this.#requireOwn(receipt);
  }

  async #requireOwn(receipt: KmsReceipt): Promise<void> {
    const { trust } = this.#options;
    if (!timingSafeEqual(Buffer.from(receipt.mac), Buffer.from(this.#macOf(receipt))))
      throw this.#invalid('forged');
    // Another process may just have restored the chain, or accepted a loss.
    if (receipt.epoch > trust.epoch) await trust.check();
    if (receipt.epoch < trust.epoch) return;
    if (receipt.epoch > trust.epoch) throw trust.lacksRestore(receipt.epoch);
    if (!(await trust.has(receipt))) throw trust.lacks(receipt, receipt.epoch);
  }

  #macOf({ installation, epoch, seq, hash }: Omit<KmsReceipt, 'mac'>): string {
    return createHmac('sha256', this.#key)
      .update(JSON.stringify(['receipt', installation, epoch, seq, hash]))
      .digest('base64url');
  }

  #invalid(reason: Reason): AppError {
    this.#options.metrics.invalidReceipts.inc({ reason });
    return new AppError('receipt_invalid');
  }
}
