import type { Clock } from '@bundoc/shared/runtime/clock';
import { RECEIPTS_BYTES_MAX, type ReceiptStore } from '../../../kms/receipt-store.ts';
import type { Database, Row, Statement } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';

/** A longer one is read as an empty one: it would exhaust the memory of each node. */
const FILE = `CASE WHEN octet_length(kept.file) > ${RECEIPTS_BYTES_MAX} THEN '' ELSE kept.file END`;
const READ: Statement = {
  name: 'bundoc-read-kms-receipts-1',
  text: `SELECT ${FILE} FROM bundoc.kms_receipts AS kept WHERE one`,
};
/** Creates the row if there is none. Nodes that do so together create one. */
const LOCKED: Statement = {
  name: 'bundoc-kms-receipts-locked-1',
  text: `INSERT INTO bundoc.kms_receipts AS kept (one, file) VALUES (true, '')
         ON CONFLICT (one) DO UPDATE SET file = kept.file RETURNING ${FILE}`,
};
const WRITE: Statement = {
  name: 'bundoc-write-kms-receipts-1',
  text: 'UPDATE bundoc.kms_receipts SET file = $1 WHERE one',
};

/** The receipts of BunKMS in a database that several nodes share. */
export function receiptsInRow(database: Pick<Database, 'query' | 'transaction'>, clock: Clock): ReceiptStore {
  return {
    read: async () => {
      const [row] = await retryUnavailable(clock, () => database.query(READ, []));
      return textOf(row);
    },
    write: async (next) => {
      await database.transaction([{ statement: LOCKED, values: [] }], async (transaction, [locked]) => {
        const present = textOf(locked?.[0]);
        const text = next(present);
        // Another node has stored the same, so there is nothing to commit.
        if (text === present) return undefined;
        await transaction.last(WRITE, [text]);
        return text;
      });
    },
  };
}

function textOf(row: Row | undefined): string | undefined {
  const text = row?.[0];
  return typeof text === 'string' && text !== '' ? text : undefined;
}
