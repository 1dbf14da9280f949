import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatReceipt, parseReceipt, RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { LONG } from '@bundoc/shared/testing/long';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openEvents } from './support/events.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { type PlantedTrigger, plant } from './support/planted-trigger.ts';
import { testStorage } from './support/storage.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

const NAME = 'a-dek';

describe('BunKMS on SQLite', () => {
  // SQLite has no other kind.
  believesWhatItReadBack(['before']);
  describe('a receipt that a client returns', believesReceipts);
});

describe('BunKMS on PostgreSQL', needs('postgresql'), () => {
  usePostgresStorage();
  // Both kinds of triggers are refused by the same comparison, and receipts by the same code as on SQLite.
  believesWhatItReadBack(LONG ? ['before', 'deferred'] : ['deferred']);
  if (LONG) describe('a receipt that a client returns', believesReceipts);
});

let kms: TestKms;
let keys: KeyCalls;
let token: string;
let clock: MovedClock;
beforeEach(async () => {
  clock = new MovedClock();
  kms = await startKms({ watchEveryMs: 100, clock });
  keys = await KeyCalls.of(kms);
  token = await kms.fullToken();
  expect((await keys.create(NAME)).status).toBe(201);
});
afterEach(() => kms[Symbol.asyncDispose]());

const edit = (sql: string) => testStorage().edit(kms.dataDir, sql);
/** The same, beside copies that are no part of the store: a table in it would be a fault of its own. */
const editWithCopies = (sql: string) => {
  const isSqlite = testStorage().kind === 'sqlite';
  const place = isSqlite ? `ATTACH '${kms.dataDir}.copies' AS copies` : 'CREATE SCHEMA IF NOT EXISTS copies';
  return edit(`${place}; ${sql}`);
};
/** A second later than the last answer, which the service would repeat. */
const ready = async () => {
  clock.movedMs += 1_000;
  return (await kms.api('/ready')).json() as { status: string; faults?: string[] };
};
/** Waits until the service is sealed, and names a fault. */
const untilSealed = (fault: string | RegExp) =>
  expect
    .poll(ready)
    .toMatchObject({ status: 'sealed', faults: expect.arrayContaining([expect.stringMatching(fault)]) });
const untilReady = () => expect.poll(ready).toMatchObject({ status: 'ready' });
const receiptOf = async () => {
  const { headers } = await keys.export(NAME);
  return String(headers[RECEIPT_HEADER]);
};

/** Plants a trigger, expects that an action is not answered as done, and that the service recovers. */
async function refuses(trigger: PlantedTrigger, act: () => Promise<{ status: number; text: string }>) {
  const remove = await plant(kms.dataDir, trigger);
  const answer = await act();
  expect([503, answer.status], answer.text).toContain(answer.status);
  expect(answer.status).toBe(503);
  await untilSealed(`trigger planted on ${trigger.table}`);
  expect((await keys.export(NAME)).status).toBe(503);
  await remove();
  await untilReady();
}

function believesWhatItReadBack(triggers: readonly PlantedTrigger['when'][]): void {
  describe.each(triggers)('under a trigger that undoes a write %s the commit', (when) => {
    it('releases no key without its audit record', async () => {
      const of = "NEW.action = 'key.export'";
      await refuses({ table: 'audit', event: 'INSERT', when, of }, async () => {
        const answer = await keys.export(NAME);
        expect(answer.text).not.toContain('key_material');
        return answer;
      });
      expect((await keys.export(NAME)).status).toBe(200);
    });

    it('reports no revocation that is not in the chain', async () => {
      const { jti } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
      const of = "NEW.action = 'token.revoke'";
      await refuses({ table: 'audit', event: 'INSERT', when, of }, () =>
        kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token }),
      );
    });

    it('issues no token without its audit record', async () => {
      const of = "NEW.action = 'token.issue'";
      await refuses({ table: 'audit', event: 'INSERT', when, of }, () =>
        kms.api('/v1/tokens', {
          token,
          body: { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['p'] },
        }),
      );
    });

    it.each([
      ['disables', () => keys.post(NAME, 'disable')],
      ['schedules the deletion of', () => keys.delete(NAME)],
      ['destroys', () => keys.shred(NAME)],
    ])('never says that it %s a key which stays as it was', async (_, act) => {
      await refuses({ table: 'keys', event: 'UPDATE', when, of: "NEW.state <> 'enabled'" }, act);
    });

    it('never says that it destroyed a key whose wrapped bytes stay', async () => {
      await refuses({ table: 'key_versions', event: 'UPDATE', when, of: "NEW.state = 'destroyed'" }, () =>
        keys.shred(NAME),
      );
    });

    it('never says that it created a key which is not there', async () => {
      await refuses({ table: 'key_versions', event: 'INSERT', when, of: 'NEW.version = 1' }, () =>
        keys.create('b-dek'),
      );
    });
  });

  it('keeps each refused access to a key while it is sealed, and adds them to the chain afterwards', async () => {
    const of = "NEW.action = 'key.export'";
    const remove = await plant(kms.dataDir, { table: 'audit', event: 'INSERT', when: 'before', of });
    for (let request = 0; request < 3; request++) expect((await keys.export(NAME)).status).toBe(503);
    await untilSealed('trigger planted on audit');
    await remove();
    await untilReady();
    const adopted = async () => (await kms.records()).filter(({ action }) => action === 'records.adopted');
    await expect
      .poll(adopted)
      .toMatchObject([{ severity: 'CRITICAL', outcome: 'allowed', detail: { lines: 3, dropped: 0 } }]);
    const [{ detail } = {}] = await adopted();
    const file = readFileSync(join(kms.dataDir, `sealed-records-${detail?.['sha256']}.jsonl`), 'utf8');
    expect(file.match(/"action":"key.export","outcome":"failed"/g)).toHaveLength(3);
    expect((await kms.internal('/metrics')).text).toContain('bunkms_audit_records_lost_total 0');
  });

  it('makes no new installation in a database from which somebody removed it', async () => {
    await kms.running.close();
    await edit('CREATE TABLE kept AS SELECT * FROM installation; DELETE FROM installation');
    await expect(startKms({ dataDir: kms.dataDir, kek: kms.kek })).rejects.toMatchObject({ code: 'sealed' });
    await edit('INSERT INTO installation SELECT * FROM kept; DROP TABLE kept');
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    expect((await again.internal(`/v1/export/${NAME}`, { token })).status).toBe(200);
    expect(await again.verify()).toMatchObject({ intact: true });
  });

  describe('when the end of the chain is cut off', () => {
    /** The database as it is now: all rows of the chain, keys and tokens. */
    const cutAfter = (seq: number) => edit(`DELETE FROM audit WHERE seq > ${seq}`);
    const head = async () => (await kms.store.auditHead()).seq;

    it('releases no key to a token that was revoked, although its rows say that it was not', async () => {
      const { jti, token: revoked } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
      const before = await head();
      expect((await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token })).status).toBe(204);
      await cutAfter(before);
      await edit(`UPDATE tokens SET revoked_at = NULL WHERE jti = '${jti}'`);
      expect((await kms.internal(`/v1/export/${NAME}`, { token: revoked })).status).toBe(503);
      await untilSealed(/the audit chain lacks its record \d+/);
    });

    it('releases no key that was disabled, although its rows say that it was not', async () => {
      const before = await head();
      await editWithCopies(
        'DROP TABLE IF EXISTS copies.keys; CREATE TABLE copies.keys AS SELECT * FROM keys',
      );
      expect((await keys.post(NAME, 'disable')).status).toBe(200);
      await cutAfter(before);
      await editWithCopies(`UPDATE keys SET state = 'enabled', revision = 1, version_digests =
        (SELECT version_digests FROM copies.keys AS old WHERE old.name = '${NAME}') WHERE name = '${NAME}'`);
      expect((await keys.export(NAME)).status).toBe(503);
      await untilSealed(/the audit chain lacks its record \d+/);
    });

    it('answers again once the records are back', async () => {
      await keys.export(NAME);
      await editWithCopies(
        'DROP TABLE IF EXISTS copies.audit; CREATE TABLE copies.audit AS SELECT * FROM audit',
      );
      await cutAfter(2);
      await untilSealed(/the audit chain lacks its record \d+/);
      await editWithCopies('INSERT INTO audit SELECT * FROM copies.audit WHERE seq > 2');
      await untilReady();
      expect((await keys.export(NAME)).status).toBe(200);
    });

    it('is noticed after a restart by a receipt that a client returns', async () => {
      const before = await head();
      const receipt = await receiptOf();
      await kms.running.close();
      await cutAfter(before);
      await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
      expect((await again.api('/ready')).status).toBe(200);
      const answer = await again.internal(`/v1/export/${NAME}`, {
        token,
        headers: { [RECEIPT_HEADER]: receipt },
      });
      expect([answer.status, answer.json().code]).toEqual([503, 'sealed']);
      await expect
        .poll(async () => (await again.api('/ready')).json().faults)
        .toEqual([`the audit chain lacks its record ${parseReceipt(receipt)?.seq}`]);
    });
  });

  it('notices that one record in the middle is gone, as long as it knows what that record said', async () => {
    const { jti, token: revoked } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
    await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token });
    for (let n = 0; n < 3; n++) await keys.export(NAME);
    await edit(`DELETE FROM audit WHERE action = 'token.revoke'; UPDATE tokens SET revoked_at = NULL`);
    expect((await kms.internal(`/v1/export/${NAME}`, { token: revoked })).status).toBe(503);
    await untilSealed(/the audit chain lacks its record \d+/);
  });

  it('does not continue a chain whose last record somebody planted', async () => {
    await edit(`INSERT INTO audit SELECT 9000,
      time, severity, action, outcome, actor, jti, key, version, source, request_id, code, detail, prev_hash, hash
      ${testStorage().kind === 'sqlite' ? '' : ', write_id'} FROM audit WHERE seq = 2`);
    expect((await keys.export(NAME)).status).toBe(503);
    await untilSealed('record 9000|is missing');
    await edit('DELETE FROM audit WHERE seq = 9000');
    await untilReady();
  });

  it('sends no event of a planted record, and ends the streams while it is sealed', async () => {
    const { jti } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { token: reader } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
    using stream = await openEvents(kms.running.internalUrl, reader);
    expect(stream.status).toBe(200);
    // Until its first place a stream may carry an event twice: from the list of revoked tokens, and as new.
    await expect.poll(() => stream.seen.some(({ id }) => id !== undefined)).toBe(true);
    expect((await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token })).status).toBe(204);
    const revoked = () => stream.seen.flatMap(({ data }) => data.jti ?? []);
    await expect.poll(revoked).toEqual([jti]);
    const head = (await kms.store.auditHead()).seq;
    const columns = `time, severity, action, outcome, actor, jti, key, version, source, request_id, code,
      replace(detail, '${jti}', '${randomUUID()}'), prev_hash, hash`;
    const more = testStorage().kind === 'sqlite' ? '' : ', write_id';
    await edit(
      `INSERT INTO audit SELECT ${head + 1}, ${columns}${more} FROM audit WHERE action = 'token.revoke'`,
    );
    // The stream ends once the service is sealed.
    await expect.poll(() => stream.isEnded).toBe(true);
    expect(revoked()).toEqual([jti]);
    await untilSealed(`record ${head + 1} of the audit chain`);
  });
}

/** What BunKMS does with a receipt, whichever store it has. */
function believesReceipts(): void {
  const withReceipt = (value: string) =>
    kms.internal(`/v1/export/${NAME}`, { token, headers: { [RECEIPT_HEADER]: value } });

  it('is accepted when the chain has its record', async () => {
    const receipt = await receiptOf();
    expect((await withReceipt(receipt)).status).toBe(200);
    expect((await withReceipt(`${receipt},${receipt}`)).status).toBe(200);
  });

  it('of another installation says nothing', async () => {
    const receipt = parseReceipt(await receiptOf());
    if (receipt === undefined) throw new Error('there is a receipt');
    const other = formatReceipt({ ...receipt, installation: '0'.repeat(16), seq: 9_999 });
    expect((await withReceipt(other)).status).toBe(200);
  });

  it('that was changed is 400, counted, and seals nothing', async () => {
    const receipt = parseReceipt(await receiptOf());
    if (receipt === undefined) throw new Error('there is a receipt');
    const forged = [
      formatReceipt({ ...receipt, seq: receipt.seq + 1 }),
      formatReceipt({ ...receipt, epoch: receipt.epoch + 1 }),
      formatReceipt({ ...receipt, hash: 'a'.repeat(64) }),
      formatReceipt({ ...receipt, mac: 'A'.repeat(43) }),
      'x',
      Array(5).fill(formatReceipt(receipt)).join(','),
    ];
    for (const value of forged) {
      const answer = await withReceipt(value);
      expect([answer.status, answer.json().code]).toEqual([400, 'receipt_invalid']);
    }
    const metrics = (await kms.internal('/metrics')).text;
    expect(metrics).toContain('bunkms_invalid_receipts_total{reason="forged"} 4');
    expect(metrics).toContain('bunkms_invalid_receipts_total{reason="malformed"} 2');
    expect((await ready()).status).toBe('ready');
  });

  it('is not looked at without a valid token', async () => {
    const answer = await kms.internal(`/v1/export/${NAME}`, { headers: { [RECEIPT_HEADER]: 'x' } });
    expect(answer.status).toBe(401);
  });
}
