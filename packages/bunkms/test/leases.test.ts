import { rmSync } from 'node:fs';
import { exportedKeySchema, leasePageSchema } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';

const MINUTE_MS = 60_000;

describe('the leases of a key', () => {
  let clock: FakeClock;
  let kms: TestKms;
  let token: string;
  const installation = { dataDir: '', kek: newKek() };
  const start = (leaseTtlMs = 15 * MINUTE_MS) => startKms({ ...installation, clock, config: { leaseTtlMs } });
  const exported = async (name: string, by = token) =>
    exportedKeySchema.strict().parse((await kms.internal(`/v1/export/${name}`, { token: by })).json());
  const leases = async (name: string, query = '') => {
    const answer = await kms.api(`/v1/keys/${name}/leases${query}`, { token });
    return leasePageSchema.strict().parse(answer.json());
  };

  beforeEach(async () => {
    clock = new FakeClock();
    installation.dataDir = newDataDir();
    kms = await start();
    token = await kms.fullToken();
    for (const name of ['a-dek', 'b-dek'])
      await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } });
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    rmSync(installation.dataDir, { recursive: true });
  });

  it('name the holder, the version and the end of each', async () => {
    const bundoc = await kms.issue({ sub: 'bundoc', scope: ['kms:export_key'], keys: ['*'] });
    const issuedAt = new Date(clock.now()).toISOString();
    const { lease, audit } = await exported('a-dek', bundoc.token);
    expect(lease).toEqual({ id: String(audit.seq), ttl_ms: 15 * MINUTE_MS });
    await exported('b-dek');
    await kms.internal('/v1/export/a-dek');
    expect(await leases('a-dek')).toEqual({
      leases: [
        {
          id: lease.id,
          version: 1,
          subject: 'bundoc',
          jti: bundoc.jti,
          source: '127.0.0.1',
          issued_at: issuedAt,
          until: new Date(Date.parse(issuedAt) + 15 * MINUTE_MS).toISOString(),
        },
      ],
    });
  });

  it('are listed until they end, newest first, in pages', async () => {
    const ids: string[] = [];
    for (let minute = 0; minute < 4; minute++) {
      ids.unshift((await exported('a-dek')).lease.id);
      clock.advance(5 * MINUTE_MS);
    }
    const first = await leases('a-dek', '?limit=1');
    const second = await leases('a-dek', `?cursor=${first.next_cursor}`);
    expect([...first.leases, ...second.leases].map(({ id }) => id)).toEqual(ids.slice(0, 2));
    clock.advance(10 * MINUTE_MS);
    expect(await leases('a-dek')).toEqual({ leases: [] });
  });

  it('are known after a restart, with their original length', async () => {
    const long = await exported('a-dek');
    await kms[Symbol.asyncDispose]();
    kms = await start(MINUTE_MS);
    const short = await exported('a-dek');
    expect(short.lease.ttl_ms).toBe(MINUTE_MS);
    expect((await leases('a-dek')).leases.map(({ id }) => id)).toEqual([short.lease.id, long.lease.id]);
    clock.advance(MINUTE_MS);
    expect((await leases('a-dek')).leases.map(({ id }) => id)).toEqual([long.lease.id]);
  });

  it('requests for leases of a missing key are 404, and each is recorded', async () => {
    expect((await kms.api('/v1/keys/none-dek/leases', { token })).json()).toMatchObject({
      code: 'key_not_found',
    });
    await leases('a-dek');
    expect((await kms.records()).at(-1)).toMatchObject({
      action: 'key.leases',
      key: 'a-dek',
      detail: { count: 0 },
    });
  });
});
