import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { needs } from '@bundoc/shared/testing/programs';
import { beforeEach, describe, expect, it } from 'vitest';
import { receiptsInRow } from '../src/engine/postgres/rows/receipts-in-row.ts';
import { RECEIPTS_BYTES_MAX } from '../src/kms/receipt-store.ts';
import { Receipts } from '../src/kms/receipts.ts';
import { parseReceiptsText } from '../src/kms/receipts-text.ts';
import { receiptOf, receiptText } from '../src/testing/kms-receipts.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { database, server, sql, usePostgresEngine } from './support/postgres-engine.ts';

const OTHER = { installation: 'fedcba9876543210' };
const logger = createLogger({ service: 'bundoc', level: 'silent' });

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();
  beforeEach(() => sql('DELETE FROM bundoc.kms_receipts'));

  const store = () => receiptsInRow(database, systemClock);
  const node = () => Receipts.load({ store: store(), clock: systemClock, logger });
  const stored = async () => parseReceiptsText(String(await store().read()));

  describe('the receipts of BunKMS', () => {
    it('are sent again by every node that starts, and the row is the only one', async () => {
      {
        await using first = await node();
        first.take(receiptText(7));
        first.take(receiptText(3, OTHER));
      }
      await using one = await node();
      await using other = await node();
      expect([one.header(), other.header()]).toEqual(
        Array(2).fill(`${receiptText(7)},${receiptText(3, OTHER)}`),
      );
      expect(await sql('SELECT count(*) FROM bundoc.kms_receipts')).toBe('1');
    });

    it('are the newest of all nodes, which write at the same time into a table without the row', async () => {
      const nodes = await Promise.all(Array.from({ length: 8 }, node));
      for (let round = 0; round < 5; round++) {
        for (const [n, one] of nodes.entries()) one.take(receiptText(10 * round + ((n * 3) % 8)));
        await Promise.all(nodes.map((one) => one.save()));
        expect(await stored()).toEqual([receiptOf(10 * round + 7)]);
      }
      for (const one of nodes) await one[Symbol.asyncDispose]();
    });

    it('are changed under the lock of the row: a node waits for another one, and keeps its newer receipt', async () => {
      await store().write(() => 'first');
      const isLocked = Promise.withResolvers<void>();
      const mayEnd = Promise.withResolvers<void>();
      const slow = database.transaction('', async (transaction) => {
        await transaction.run("UPDATE bundoc.kms_receipts SET file = 'second'");
        isLocked.resolve();
        await mayEnd.promise;
        return true;
      });
      await isLocked.promise;
      const seen: unknown[] = [];
      const written = store().write((present) => {
        seen.push(present);
        return 'third';
      });
      await expect
        .poll(() => sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        .toBe('1');
      mayEnd.resolve();
      await Promise.all([slow, written]);
      expect([seen, await store().read()]).toEqual([['second'], 'third']);
    });

    it('are committed only when they change', async () => {
      await store().write(() => 'same');
      const version = 'SELECT xmin FROM bundoc.kms_receipts';
      const before = await sql(version);
      await store().write(() => 'same');
      expect(await sql(version)).toBe(before);
    });

    it.each([
      ['no row', 'DELETE FROM bundoc.kms_receipts'],
      ['an empty text', "UPDATE bundoc.kms_receipts SET file = ''"],
      ['no text', 'UPDATE bundoc.kms_receipts SET file = NULL'],
      [
        'a text that is too large',
        `UPDATE bundoc.kms_receipts SET file = repeat('x', ${RECEIPTS_BYTES_MAX + 1})`,
      ],
      ['a row that is not the one', 'UPDATE bundoc.kms_receipts SET one = false'],
      ['noise', "UPDATE bundoc.kms_receipts SET file = '[[['"],
    ])('are replaced where someone left %s', async (_name, edit) => {
      await sql(`ALTER TABLE bundoc.kms_receipts DROP CONSTRAINT IF EXISTS kms_receipts_one_check,
        DROP CONSTRAINT IF EXISTS kms_receipts_file_check, ALTER COLUMN file DROP NOT NULL`);
      await store().write(() => 'former');
      await sql(edit);
      await using receipts = await node();
      expect(receipts.header()).toBeUndefined();
      receipts.take(receiptText(7));
      await receipts.save();
      expect(await stored()).toEqual([receiptOf(7)]);
    });

    it('fail no start when their table is missing, and no node', async () => {
      await using bare = openTestDatabase((await server.createDatabase('bare')).url);
      await using receipts = await Receipts.load({
        store: receiptsInRow(bare, systemClock),
        clock: systemClock,
        logger,
      });
      receipts.take(receiptText(7));
      await receipts.save();
      expect(receipts.header()).toBe(receiptText(7));
    });
  });
});
