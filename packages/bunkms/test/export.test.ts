import { createSecretKey } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { exportedKeySchema, keyDetailSchema, keyInfoSchema } from '@bundoc/shared/contract/keys';
import { keyCheckValue } from '@bundoc/shared/crypto/aead';
import { createLogger } from '@bundoc/shared/logs/logger';
import { Drain } from '@bundoc/shared/process/drain';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ExportRecorder } from '../src/audit/export-recorder.ts';
import { AuditLog } from '../src/audit/log.ts';
import { AuditRecorders } from '../src/audit/recorders.ts';
import { exportAudit } from '../src/http/export-audit.ts';
import { createInternalListener } from '../src/http/listener.ts';
import { createMetrics } from '../src/metrics.ts';
import { withDatabase } from './support/database.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { testStorage } from './support/storage.ts';

const NIL = '00000000-0000-4000-8000-000000000000';
const idOf = (name: string) => `key_id = (SELECT id FROM keys WHERE name = '${name}')`;
const BAD = idOf('bad-dek');

describe('export', () => {
  let kms: TestKms;
  let faulty: FaultyStore;
  let token: string;
  beforeEach(async () => {
    faulty = new FaultyStore();
    kms = await startKms({ decorate: faulty.decorate });
    token = await kms.fullToken();
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const create = (name: string) => kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } });
  const accesses = async () => (await kms.records()).filter(({ action }) => action === 'key.export');
  const damage = (sql: string) => testStorage().edit(kms.dataDir, sql);

  it('returns the created key, always the same, even after a restart', async () => {
    const created = await create('a-dek');
    expect(created.status).toBe(201);
    expect(created.headers['location']).toBe('/v1/keys/a-dek');
    const info = keyInfoSchema.parse(created.json());
    const answer = await kms.internal('/v1/export/a-dek', { token });
    expect(answer).toMatchObject({ status: 200, headers: { 'cache-control': 'no-store' } });
    const key = exportedKeySchema.strict().parse(answer.json());
    expect(key).toMatchObject({
      name: 'a-dek',
      key_id: info.id,
      version: 1,
      kcv: info.kcv,
      lease: { ttl_ms: 900_000 },
    });
    const dek = Buffer.from(key.key_material_b64, 'base64');
    expect(keyCheckValue(createSecretKey(dek))).toBe(info.kcv);
    expect(keyDetailSchema.strict().parse((await kms.api('/v1/keys/a-dek', { token })).json())).toEqual({
      ...info,
      versions: [{ version: 1, kcv: info.kcv, state: 'available', created_at: info.created_at }],
    });

    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    const later = exportedKeySchema.parse((await again.internal('/v1/export/a-dek', { token })).json());
    expect(later.key_material_b64).toBe(key.key_material_b64);
    expect(later.lease.id).not.toBe(key.lease.id);
  });

  it('leaves one CRITICAL record with caller, key, address and request, also in the log', async () => {
    const reader = await kms.issue({ sub: 'bundoc', scope: ['kms:export_key'], keys: ['*'] });
    await create('a-dek');
    const answer = await kms.internal('/v1/export/a-dek', { token: reader.token });
    const { audit, key_id, lease } = exportedKeySchema.parse(answer.json());
    const records = await accesses();
    expect(records).toHaveLength(1);
    expect(records[0]).toMatchObject({
      ...audit,
      severity: 'CRITICAL',
      outcome: 'allowed',
      actor: 'bundoc',
      jti: reader.jti,
      key: 'a-dek',
      version: 1,
      source: '127.0.0.1',
      detail: { key_id, lease_ttl_ms: lease.ttl_ms },
    });
    const line = kms.logs.map((text) => JSON.parse(text)).find(({ msg }) => msg === 'key exported');
    expect(line).toMatchObject({
      keyName: 'a-dek',
      version: 1,
      actor: 'bundoc',
      jti: reader.jti,
      source: '127.0.0.1',
      reqId: records[0]?.request_id,
      outcome: 'allowed',
    });
  });

  it('says in its record that a drill asked, and takes no other purpose', async () => {
    await create('a-dek');
    expect((await kms.internal('/v1/export/a-dek?purpose=drill', { token })).status).toBe(200);
    expect((await accesses()).at(-1)?.detail).toMatchObject({ purpose: 'drill' });
    const storage = `storage=${NIL}&generation=${NIL}`;
    for (const query of ['purpose=other', `purpose=drill&${storage}`])
      expect((await kms.internal(`/v1/export/a-dek?${query}`, { token })).status).toBe(400);
  });

  it('answers only once its record is durable', async () => {
    await create('a-dek');
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    faulty.replaced.appendAudit = async (real, records) => {
      reached.resolve();
      await gate.promise;
      return real(records);
    };
    let isAnswered = false;
    const answer = kms.internal('/v1/export/a-dek', { token }).then((got) => {
      isAnswered = true;
      return got;
    });
    await reached.promise;
    // Other requests are served, so this answer waits only for the record.
    expect((await kms.internal('/health')).status).toBe(200);
    expect((await kms.api('/v1/audit/head', { token })).status).toBe(200);
    expect(isAnswered).toBe(false);
    gate.resolve();
    const key = exportedKeySchema.parse((await answer).json());
    expect((await kms.store.auditHead()).seq).toBeGreaterThanOrEqual(key.audit.seq);
  });

  it.each([
    ['before it is written', false],
    ['after it was written', true],
  ])('releases nothing when the audit fails %s', async (_when, isWritten) => {
    await create('a-dek');
    const dek = exportedKeySchema.parse(
      (await kms.internal('/v1/export/a-dek', { token })).json(),
    ).key_material_b64;
    faulty.replaced.appendAudit = async (real, records) => {
      if (isWritten) await real(records);
      throw new AppError('storage_unavailable', { cause: new Error('injected') });
    };
    const answer = await kms.internal('/v1/export/a-dek', { token });
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(answer.json()).toMatchObject({ code: 'audit_unavailable' });
    expect(answer.text).not.toContain('key_material');
    expect(answer.text).not.toContain(dek);
    expect((await kms.internal('/ready')).json()).toMatchObject({
      status: 'unavailable',
      checks: { audit: false },
    });
    const lost = kms.logs.map((text) => JSON.parse(text)).filter(({ record }) => record !== undefined);
    expect(lost[0]).toMatchObject({ keyName: 'a-dek', record: { code: 'audit_unavailable' } });
    expect((await kms.internal('/metrics')).text).toMatch(/bunkms_audit_records_lost_total [1-9]/);

    delete faulty.replaced.appendAudit;
    expect((await kms.internal('/v1/export/a-dek', { token })).status).toBe(200);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('gives 200 concurrent callers separate receipts in one chain', async () => {
    const names = Array.from({ length: 20 }, (_, number) => `p${number}-dek`);
    await Promise.all(names.map(create));
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, number) => kms.internal(`/v1/export/${names[number % 20]}`, { token })),
    );
    const keys = answers.map((answer) => exportedKeySchema.parse(answer.json()));
    expect(new Set(keys.map(({ audit }) => audit.seq)).size).toBe(200);
    expect(new Set(keys.map(({ key_material_b64 }) => key_material_b64)).size).toBe(20);
    const records = new Map((await accesses()).map((record) => [record.seq, record]));
    for (const { audit, name } of keys)
      expect(records.get(audit.seq)).toMatchObject({ hash: audit.hash, key: name });
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('an export of a missing key is 404, and recorded as a failed access', async () => {
    const answer = await kms.internal('/v1/export/none-dek', { token });
    expect(answer.json()).toMatchObject({ status: 404, code: 'key_not_found' });
    expect(await accesses()).toMatchObject([
      { severity: 'CRITICAL', outcome: 'failed', code: 'key_not_found', key: 'none-dek' },
    ]);
  });

  it.each([
    ['whose bytes were changed', `UPDATE key_versions SET wrapped = x'${'00'.repeat(69)}' WHERE ${BAD}`],
    ['whose bytes were cut off', `UPDATE key_versions SET wrapped = x'01' WHERE ${BAD}`],
    ['whose check value was changed', `UPDATE key_versions SET kcv = '${'0'.repeat(32)}' WHERE ${BAD}`],
    [
      'that holds the bytes of another',
      `UPDATE key_versions SET wrapped = (SELECT wrapped FROM key_versions WHERE ${idOf('good-dek')}) WHERE ${BAD}`,
    ],
    ['that is lost', `DELETE FROM key_versions WHERE ${BAD}`],
    ['that was given another version', `UPDATE keys SET version = 2 WHERE name = 'bad-dek'`],
    [
      'that was given another version in both places',
      `UPDATE key_versions SET version = 2 WHERE ${BAD}; UPDATE keys SET version = 2 WHERE name = 'bad-dek'`,
    ],
    [
      'that was given another id',
      `UPDATE key_versions SET key_id = '${NIL}' WHERE ${BAD}; UPDATE keys SET id = '${NIL}' WHERE name = 'bad-dek'`,
    ],
    [
      'that was renamed',
      `UPDATE keys SET name = 'x' WHERE name = 'bad-dek'; UPDATE keys SET name = 'bad-dek' WHERE name = 'third-dek'`,
    ],
  ])(
    'an export of a record %s is key_damaged, keeps the name taken, and does not affect other keys',
    async (_what, sql) => {
      for (const name of ['good-dek', 'bad-dek', 'third-dek']) await create(name);
      await damage(sql);
      const answer = await kms.internal('/v1/export/bad-dek', { token });
      expect(answer.json()).toMatchObject({ status: 503, code: 'key_damaged' });
      expect(answer.text).not.toContain('unwrap');
      expect((await create('bad-dek')).json()).toMatchObject({ status: 409, code: 'key_exists' });
      expect((await kms.internal('/v1/export/good-dek', { token })).status).toBe(200);
      expect((await kms.internal('/ready')).status).toBe(200);
      expect((await accesses()).map(({ outcome, code }) => [outcome, code])).toEqual([
        ['failed', 'key_damaged'],
        ['allowed', undefined],
      ]);
    },
  );

  it('leaves exactly one CRITICAL record of every refused access, whatever the cause', async () => {
    await create('a-dek');
    const client = (await kms.issue({ typ: 'client', scope: ['kms:read_key'], keys: ['*'] })).token;
    const elsewhere = (await kms.issue({ scope: ['kms:export_key'], keys: ['other'] })).token;
    const expected: [string, Partial<AuditRecord>][] = [];
    const refuse = async (
      path: string,
      method: string,
      as: string | undefined,
      record: Partial<AuditRecord>,
    ) => {
      await kms.internal(path, { method, token: as });
      expected.push([`${method} ${path}`, { severity: 'CRITICAL', ...record }]);
    };
    await refuse('/v1/export/a-dek', 'GET', undefined, {
      outcome: 'refused',
      code: 'unauthenticated',
      key: 'a-dek',
    });
    await refuse('/v1/%65xport/a-dek', 'GET', undefined, {
      outcome: 'refused',
      code: 'unauthenticated',
      key: 'a-dek',
    });
    await refuse('/v1/export/a-dek', 'GET', client, {
      outcome: 'refused',
      code: 'forbidden',
      actor: 'tester',
    });
    await refuse('/v1/export/a-dek', 'GET', elsewhere, {
      outcome: 'refused',
      code: 'forbidden',
      actor: 'tester',
    });
    await refuse('/v1/export/a-dek?version=1001', 'GET', token, {
      outcome: 'refused',
      code: 'invalid_request',
      key: 'a-dek',
    });
    await refuse('/v1/export/a-dek?version=7', 'GET', token, {
      outcome: 'failed',
      code: 'key_not_found',
      key: 'a-dek',
      version: 7,
    });
    await refuse('/v1/export/a-dek?version=1', 'GET', elsewhere, {
      outcome: 'refused',
      code: 'forbidden',
      key: 'a-dek',
      version: 1,
    });
    await refuse('/v1/export/A%00', 'GET', token, {
      outcome: 'refused',
      code: 'invalid_request',
      key: expect.stringMatching(/^sha256:/),
    });
    await refuse('/v1/export/a-dek', 'POST', undefined, {
      outcome: 'refused',
      code: 'method_not_allowed',
      key: 'a-dek',
    });
    await refuse('/v1/export/a-dek', 'HEAD', token, { outcome: 'refused', code: 'method_not_allowed' });
    await refuse('/v1/export', 'GET', undefined, { outcome: 'refused', code: 'not_found' });
    await refuse('/v1/export/a/b', 'GET', token, {
      outcome: 'refused',
      code: 'not_found',
      key: expect.stringMatching(/^sha256:/),
    });
    await refuse('/v1/export/%zz', 'GET', token, {
      outcome: 'refused',
      code: 'invalid_request',
      key: expect.stringMatching(/^sha256:/),
    });
    const records = await accesses();
    expect(records).toHaveLength(expected.length);
    for (const [index, [what, record]] of expected.entries())
      expect({ what, ...records[index] }).toMatchObject({ what, ...record });
  });

  it('is not recorded for refusals of other routes', async () => {
    await kms.internal('/v1/keys/a-dek');
    await kms.internal('/v1/exp');
    await kms.api('/v1/export/a-dek');
    expect(await accesses()).toEqual([]);
  });

  it('counts a flood of strangers, and the rest at shutdown', async () => {
    for (let time = 0; time < 25; time++) await kms.internal('/v1/export/a-dek');
    expect(await accesses()).toHaveLength(10);
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    const records = await again.records();
    const refusals = records.filter(({ action }) => action === 'key.export');
    expect(refusals).toHaveLength(11);
    expect(refusals.at(-1)).toMatchObject({
      severity: 'CRITICAL',
      outcome: 'refused',
      source: '127.0.0.1',
      detail: { count: 15 },
    });
    expect(await again.verify()).toMatchObject({ intact: true });
  });

  it('exports by 10,000 strangers from 1,500 addresses in a minute add less than 200 KiB to the store', async () => {
    const bytes = () =>
      withDatabase(kms.dataDir, (database) => {
        const [pages, size] = ['page_count', 'page_size'].map((name) =>
          Number(database.prepare(`PRAGMA ${name}`).get()?.[name]),
        );
        return Number(pages) * Number(size);
      });
    const logger = createLogger({ service: 'bunkms', level: 'silent' });
    const [clock, metrics] = [new FakeClock(), createMetrics()];
    const audit = new AuditLog({ store: kms.store, logger, metrics });
    const recorders = new AuditRecorders(audit, clock);
    const refuse = () => {
      throw new Error('not called');
    };
    const { publicKey } = await kms.secrets();
    const listener = await createInternalListener(
      {
        logger,
        clock,
        drain: new Drain(0),
        metrics,
        console: { version: '0.1.0', site: undefined },
        publicKey: () => publicKey,
        isSealed: () => false,
        services: refuse,
        readiness: refuse,
      },
      undefined,
      exportAudit(new ExportRecorder({ audit, refusals: recorders.exports, metrics, clock, logger })),
    );
    const before = bytes();
    for (let number = 0; number < 10_000; number++) {
      const remoteAddress = `10.0.${(number % 1_500) >> 8}.${(number % 1_500) & 255}`;
      const answer = await listener.inject({ remoteAddress, url: `/v1/export/name-${number}` });
      expect(answer.statusCode).toBe(401);
    }
    await listener.close();
    recorders.flush();
    await audit.drain();
    const records = await kms.records();
    const refusals = records.filter(({ action }) => action === 'key.export');
    // Seven of each of the first eight addresses, ten of the others, and the count of the rest.
    expect(refusals).toHaveLength(8 * 7 + 10 + 1);
    expect(refusals.at(-1)).toMatchObject({ source: 'others', detail: { count: 10_000 - 66 } });
    expect(bytes() - before).toBeLessThan(200 * 1_024);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('every export by a service with a valid token is recorded', async () => {
    for (let time = 0; time < 25; time++) await kms.internal('/v1/export/none', { token });
    expect(await accesses()).toHaveLength(25);
  });
});
