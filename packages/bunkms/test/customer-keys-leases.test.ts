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

  it('is not listed without a customer', async () => {
    await begin(60);
    await calls.create('b-dek');
    await calls.ciphertext('b-dek');
    expect((await kms.api('/v1/keys/b-dek/leases', { token })).json()).toEqual({ leases: [] });
  });
});
