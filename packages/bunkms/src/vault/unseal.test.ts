import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { verifyChain } from '../records/chain.ts';
import type { KmsStore } from '../store/port.ts';
import { databasePathOf, openSqliteStore } from '../store/sqlite/sqlite-store.ts';
import { publicJwkOf, signingKeyOf } from './signing-key.ts';
import { unseal } from './unseal.ts';
import { Vault } from './vault.ts';

const clock = new FakeClock();
const [kek, otherKek] = [createSecretKey(randomBytes(32)), createSecretKey(randomBytes(32))];

describe('unsealing', () => {
  let folder: string;
  let store: KmsStore;
  const open = () => openSqliteStore({ dataDir: folder, onCrash: () => undefined, deadlineMs: PATIENT_MS });
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-unseal-'));
    store = await open();
  });
  afterEach(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });

  it('creates one set of secrets, however many processes start at the same time', async () => {
    const others = await Promise.all([open(), open(), open()]);
    const states = await Promise.all(
      [store, ...others].map((one) => unseal(new Vault([kek]), one, clock, 'system')),
    );
    await Promise.all(others.map((one) => one.close()));
    const kids = states.map((state) => (state.kind === 'unsealed' ? state.publicKey.kid : state.reason));
    expect(new Set(kids).size).toBe(1);
    const [state] = states;
    if (state?.kind !== 'unsealed') throw new Error('sealed');
    const { items } = await store.listAudit({ limit: 10 });
    expect(items.map(({ action }) => action)).toEqual(['vault.initialised']);
    expect(await verifyChain(state.chainKey, items)).toMatchObject({ intact: true });
  });

  it('gives the same keys at each start', async () => {
    const first = await unseal(new Vault([kek]), store, clock, 'system');
    const second = await unseal(new Vault([kek]), store, clock, 'system');
    if (first.kind !== 'unsealed' || second.kind !== 'unsealed') throw new Error('sealed');
    expect(second.chainKey.equals(first.chainKey)).toBe(true);
    expect(second.signingKey.equals(first.signingKey)).toBe(true);
  });

  it('is refused with another KEK, and changes nothing', async () => {
    const first = await unseal(new Vault([kek]), store, clock, 'system');
    expect(await unseal(new Vault([otherKek]), store, clock, 'system')).toMatchObject({
      kind: 'sealed',
      publicKey: first.publicKey,
    });
    expect((await store.auditHead()).seq).toBe(1);
    expect(await unseal(new Vault([kek]), store, clock, 'system')).toMatchObject({ kind: 'unsealed' });
  });

  it('selects the KEK of the installation, wherever it is in the ring', async () => {
    await unseal(new Vault([kek]), store, clock, 'system');
    const ring = new Vault([otherKek, kek]);
    const state = await unseal(ring, store, clock, 'system');
    if (state.kind === 'sealed') throw new Error('sealed');
    expect(ring.currentKekId).toBe(new Vault([kek]).currentKekId);
    expect(state.keks).toMatchObject({ current: ring.currentKekId, rotation: undefined });
    expect((await store.auditHead()).seq).toBe(1);
  });

  it('continues with the KEK of the latest rotation, and is refused without it', async () => {
    await unseal(new Vault([kek]), store, clock, 'system');
    const added = new Vault([otherKek]).currentKekId;
    const time = new Date(clock.now()).toISOString();
    const record = { time, severity: 'INFO', action: 'kek.rotate', outcome: 'allowed' } as const;
    await store.addKek({ id: added, checkValue: 'x' }, { ...record, detail: { kek_id: added } });
    const ring = new Vault([kek, otherKek]);
    expect(await unseal(ring, store, clock, 'system')).toMatchObject({ keks: { current: added } });
    expect(ring.currentKekId).toBe(added);
    expect(await unseal(new Vault([kek]), store, clock, 'system')).toMatchObject({
      kind: 'sealed',
      reason: expect.stringContaining(`lacks the KEK ${added}`),
    });
  });

  it('is refused when a KEK record of the chain was changed', async () => {
    await unseal(new Vault([kek]), store, clock, 'system');
    const database = new DatabaseSync(databasePathOf(folder));
    database.exec(
      `UPDATE audit SET detail = replace(detail, '"kid"', '"kit"') WHERE action = 'vault.initialised'`,
    );
    database.close();
    expect(await unseal(new Vault([kek]), store, clock, 'system')).toMatchObject({
      kind: 'sealed',
      reason: 'the audit record 1 of the KEKs was changed',
    });
  });

  it.each([
    ['a changed check value', `UPDATE keks SET check_value = '${'00'.repeat(16)}'`],
    ['a damaged chain key', `UPDATE installation SET chain_key_wrapped = zeroblob(69)`],
    [
      'a chain key that is cut off',
      `UPDATE installation SET chain_key_wrapped = substr(chain_key_wrapped, 1, 60)`,
    ],
    ['a damaged signing seed', `UPDATE installation SET signing_seed_wrapped = chain_key_wrapped`],
  ])('is refused for %s', async (_what, sql) => {
    await unseal(new Vault([kek]), store, clock, 'system');
    const database = new DatabaseSync(databasePathOf(folder));
    database.exec(sql);
    database.close();
    expect(await unseal(new Vault([kek]), store, clock, 'system')).toMatchObject({ kind: 'sealed' });
  });

  it('does not trust the public key in the store, which anybody with access to the disk can change', async () => {
    const first = await unseal(new Vault([kek]), store, clock, 'system');
    const forged = JSON.stringify(publicJwkOf(signingKeyOf(randomBytes(32))));
    const database = new DatabaseSync(databasePathOf(folder));
    database.prepare('UPDATE installation SET signing_key = ?').run(forged);
    database.close();
    expect((await unseal(new Vault([kek]), store, clock, 'system')).publicKey).toEqual(first.publicKey);
  });
});

it('the key id is the beginning of the thumbprint of RFC 8037, appendix A.3', () => {
  const seed = Buffer.from('nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A', 'base64url');
  const jwk = publicJwkOf(signingKeyOf(seed));
  expect(jwk.x).toBe('11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo');
  expect(jwk.kid).toBe('kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k'.slice(0, 16));
});
