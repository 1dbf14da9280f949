import { type LeasePage, leasePageSchema } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Customer } from './support/customer.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';

const NAME = 'a-dek';
let customer: Customer;
let clock: FakeClock;
let kms: TestKms;
let calls: KeyCalls;
let token: string;

beforeEach(async () => {
  customer = await Customer.start();
  clock = new FakeClock();
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  await customer[Symbol.asyncDispose]();
});

/** A key with such a lease, and a ciphertext under it, whose key is open from now on. */
async function begin(lease_ttl_s: number, leaseTtlMs = 900_000): Promise<string> {
  kms = await startKms({ clock, config: { outsideKeysFile: customer.file, leaseTtlMs } });
  calls = await KeyCalls.of(kms);
  token = await kms.fullToken();
  await calls.create(NAME);
  await kms.api(`/v1/keys/${NAME}/outside`, { token, method: 'PUT', body: { key: 'acme', lease_ttl_s } });
  return calls.ciphertext(NAME);
}

const leases = async (): Promise<LeasePage['leases']> =>
  leasePageSchema.strict().parse((await kms.api(`/v1/keys/${NAME}/leases`, { token })).json()).leases;

describe('a key of a customer that BunKMS keeps open', () => {
  it.each([
    [60, 900_000, 60_000],
    [900, 900_000, 300_000],
    [900, 30_000, 30_000],
  ])(
    'opens nothing any more once the lease or five minutes are over: leases of %i s and %i ms, %i ms',
    async (lease, serviceMs, keptMs) => {
      const ciphertext = await begin(lease, serviceMs);
      customer.attitude = 'denying';
      const uses = async () => [
        (await calls.crypto('encrypt', NAME, { plaintext_b64: '' })).status,
        (await calls.crypto('decrypt', NAME, { ciphertext_b64: ciphertext })).status,
        (await calls.crypto('rewrap', NAME, { ciphertext_b64: ciphertext })).status,
      ];
      clock.advance(keptMs - 1);
      expect(await uses()).toEqual([200, 200, 200]);
      // Uses keep it open no longer.
      clock.advance(2);
      expect(await uses()).toEqual([403, 403, 403]);
      customer.attitude = 'present';
      expect(await uses()).toEqual([200, 200, 200]);
    },
  );

  it('is listed among the leases until its last possible use, once for each version', async () => {
    const ciphertext = await begin(60);
    const begunMs = clock.now();
    expect(await leases()).toMatchObject([
      {
        version: 2,
        kept_by: 'bunkms',
        subject: 'tester',
        // Uses within the minute of a record have none of their own.
        until: new Date(begunMs + 120_000).toISOString(),
      },
    ]);
    clock.advance(30_000);
    await calls.crypto('decrypt', NAME, { ciphertext_b64: ciphertext });
    await calls.export(NAME);
    const listed = await leases();
    expect(listed.map(({ version, kept_by: keeper }) => [version, keeper])).toEqual([
      [2, 'bunkms'],
      [2, undefined],
    ]);
    expect(listed[0]?.until).toBe(new Date(begunMs + 150_000).toISOString());
    clock.advance(120_001);
    expect(await leases()).toEqual([]);
  });

  const keptVersions = async () =>
    (await leases()).filter(({ kept_by: keeper }) => keeper === 'bunkms').map(({ version }) => version);

  it('has no version that has opened nothing: that one opens nothing later without its customer', async () => {
    const ciphertext = await begin(900);
    await calls.post(NAME, 'rotate');
    clock.advance(360_001);
    const bytes = Buffer.from(ciphertext, 'base64');
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    customer.takeCalls();
    for (const operation of ['decrypt', 'rewrap'] as const) {
      const failed = await calls.crypto(operation, NAME, { ciphertext_b64: bytes.toString('base64') });
      expect(failed.json()).toMatchObject({ code: 'decryption_failed' });
    }
    expect(customer.takeCalls()).not.toEqual([]);
    expect(await leases()).toEqual([]);
    customer.attitude = 'denying';
    expect((await calls.crypto('decrypt', NAME, { ciphertext_b64: ciphertext })).status).toBe(403);
    expect((await calls.crypto('encrypt', NAME, { plaintext_b64: '' })).status).toBe(403);
  });

  it('is listed with every version that a rewrap has opened, also within the minute of another record', async () => {
    const ciphertext = await begin(900);
    await calls.post(NAME, 'rotate');
    const later = await calls.ciphertext(NAME);
    await calls.post(NAME, 'rotate');
    clock.advance(360_001);
    expect(await keptVersions()).toEqual([]);
    await calls.crypto('rewrap', NAME, { ciphertext_b64: later });
    expect(await keptVersions()).toEqual([4, 3]);
    customer.takeCalls();
    await calls.crypto('rewrap', NAME, { ciphertext_b64: ciphertext });
    // Only the version that was not open yet.
    expect(customer.takeCalls().filter((path) => path.includes('/decrypt/'))).toHaveLength(1);
    expect(await keptVersions()).toEqual([4, 2, 3]);
    const usedMs = clock.now();
    // As long as it opens without the customer.
    customer.attitude = 'denying';
    clock.advance(299_999);
    expect((await calls.crypto('decrypt', NAME, { ciphertext_b64: ciphertext })).status).toBe(200);
    expect(clock.now()).toBeLessThan(usedMs + 300_000);
    clock.advance(2);
    expect((await calls.crypto('decrypt', NAME, { ciphertext_b64: ciphertext })).status).toBe(403);
    expect(await keptVersions()).toContain(2);
  });

  it('is listed however many other records of the key are newer', async () => {
    await begin(900);
    const read = { action: 'key.read', severity: 'INFO', outcome: 'allowed', key: NAME } as const;
    const time = new Date(clock.now()).toISOString();
    await kms.store.appendAudit(Array.from({ length: 600 }, () => ({ ...read, time })));
    expect(await keptVersions()).toEqual([2]);
  });

  it('is not listed without a customer', async () => {
    await begin(60);
    await calls.create('b-dek');
    await calls.ciphertext('b-dek');
    expect((await kms.api('/v1/keys/b-dek/leases', { token })).json()).toEqual({ leases: [] });
  });
});
