import { kekVerificationSchema, retiredKekSchema } from '@bundoc/shared/contract/kek';
import type { ExportedKey } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import {
  actionsOf,
  bytesOf,
  dataDir,
  further,
  isStored,
  keyIn,
  old,
  retire,
  start,
  startBoth,
  unfetched,
  useKeks,
} from './support/kek-rings.ts';
import { kekIdOfText, openBare, openUnsealed, rotateKeks, statusOf } from './support/keks.ts';
import { newKek } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { testStorage } from './support/storage.ts';

useKeks();

describe('damaged keys', () => {
  const edit = (sql: string) => testStorage().edit(dataDir, sql);
  const literalOf = (bytes: Uint8Array) => `x'${Buffer.from(bytes).toString('hex')}'`;
  const damage = (name: string, set: string, version = 1) =>
    edit(
      `UPDATE key_versions SET ${set} WHERE key_id = (SELECT id FROM keys WHERE name = '${name}') AND version = ${version}`,
    );

  it('are not changed by a rotation, are reported by a verification, and prevent the retirement until accepted', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.make('half-dek', 'enabled');
    await keys.make('lost-dek', 'enabled');
    await keys.make('sound-dek', 'enabled');
    const flip = `wrapped = CAST(substr(wrapped, 1, 68) || CASE WHEN substr(wrapped, 69) = x'00' THEN x'01' ELSE x'00' END AS BLOB)`;
    await damage('half-dek', flip);
    await edit(`UPDATE keys SET exportable = false WHERE name = 'lost-dek'`);
    const status = await rotateKeks(kms);
    expect(status.rotation).toMatchObject({ total: 6, done: 3 });
    expect((await actionsOf(kms, /^kek\.rewrapped$/)).at(-1)?.detail).toMatchObject({ damaged: 3 });
    expect((await keys.export('half-dek')).status).toBe(200);
    const token = await kms.fullToken();
    const verified = await kms.api('/v1/kek/verify', { method: 'POST', token });
    expect(kekVerificationSchema.strict().parse(verified.json())).toEqual({
      checked: 3,
      under_others: 0,
      damaged: ['half-dek', 'lost-dek'],
    });
    expect((await retire(kms, { accept_unfetched: true })).json()).toMatchObject({
      status: 409,
      code: 'kek_in_use',
      detail: 'wrapped with it: 3 versions of keys, 0 secrets',
    });
    await edit(
      `INSERT INTO key_versions (key_id, version, kcv, state, created_at, wrapped) SELECT id, 9, '', 'available', '', x'01ab' FROM keys LIMIT 1`,
    );
    expect((await statusOf(kms)).keks.at(-1)).toMatchObject({ id: 'ab', state: 'unknown', versions: 1 });
    await kms.running.close();
    {
      // Without the KEK, all keys under it look damaged.
      await using without = await start(further);
      expect(without.logs.join('')).toContain('the ring lacks KEKs that are not retired');
      const answer = await retire(without, { accept_unfetched: true, accept_damaged: true });
      expect(answer.json()).toMatchObject({
        code: 'kek_in_use',
        detail: 'it is not in the ring, so it is unknown what it can open',
      });
    }
    await using again = await startBoth();
    expect((await retire(again, { accept_unfetched: true, accept_damaged: true })).status).toBe(200);
    expect(await again.verify()).toMatchObject({ intact: true });
  });

  it('damaged keys that open again later are then rewrapped with the current KEK', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.make('a-dek', 'enabled');
    const kept = (await kms.store.findKey('a-dek', 1))?.versions[0]?.wrapped ?? new Uint8Array();
    await damage('a-dek', `wrapped = x'01${kekIdOfText(old)}${'00'.repeat(60)}'`);
    await rotateKeks(kms);
    await edit(`UPDATE key_versions SET wrapped = ${literalOf(kept)} WHERE version = 1`);
    expect((await keys.export('a-dek', 1)).status).toBe(200);
    expect((await retire(kms, { accept_damaged: true, accept_unfetched: true })).json()).toMatchObject({
      code: 'kek_in_use',
      detail: 'versions of keys that can be opened are wrapped with it',
    });
    await using bare = await openUnsealed({ dataDir, ring: `${old}\n${further}` });
    expect(await bare.rewrap.run()).toBe('done');
    expect(kekIdOf(bytesOf(keyIn(await keys.export('a-dek', 1))))).toBe(kekIdOfText(further));
  });

  it('are the result of restoring a wrapping from before the rotation', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.make('a-dek', 'enabled');
    const [first] = (await kms.store.findKey('a-dek', 'all'))?.versions ?? [];
    await rotateKeks(kms);
    await edit(
      `UPDATE key_versions SET wrapped = ${literalOf(first?.wrapped ?? new Uint8Array())} WHERE version = 1`,
    );
    expect((await keys.export('a-dek', 1)).json()).toMatchObject({ code: 'key_damaged' });
    expect((await keys.export('a-dek')).status).toBe(200);
    // Together with the complete former row of the key.
    await edit(`UPDATE keys SET kek_ids = '${kekIdOfText(old)}'`);
    expect((await keys.export('a-dek')).json()).toMatchObject({ code: 'key_damaged' });
  });

  it('are all keys if somebody changes the record of the rotation to another KEK', async () => {
    await using kms = await startBoth();
    await rotateKeks(kms);
    await kms.running.close();
    await edit(
      `UPDATE audit SET detail = replace(detail, '${kekIdOfText(further)}', '${kekIdOfText(old)}') WHERE action = 'kek.rotate'`,
    );
    expect(await openBare({ dataDir, ring: `${old}\n${further}` })).toMatchObject({
      kind: 'sealed',
      reason: expect.stringMatching(/^the audit record \d+ of the KEKs was changed$/),
    });
  });
});

describe('the retirement of a KEK', () => {
  it('requires that everything is rewrapped and fetched; afterwards the retired KEK opens nothing', async () => {
    const exported = new Map<string, ExportedKey>();
    const former: Buffer[] = [];
    {
      await using kms = await startBoth();
      const keys = await KeyCalls.of(kms);
      for (const name of ['a-dek', 'b-dek', 'never-dek']) await keys.make(name, 'enabled');
      for (const name of ['a-dek', 'b-dek'])
        for (const version of [1, 2]) {
          const key = keyIn(await keys.export(name, version));
          exported.set(`${name} ${version}`, key);
          former.push(bytesOf(key));
        }
      expect((await retire(kms)).json()).toMatchObject({
        code: 'kek_in_use',
        detail: 'it is the current KEK',
      });
      await rotateKeks(kms);
      expect(await unfetched(kms)).toEqual(['a-dek', 'b-dek']);
      expect((await retire(kms)).json()).toMatchObject({ status: 409, code: 'kek_unfetched' });
      await keys.export('a-dek');
      await keys.export('b-dek');
      expect(await unfetched(kms)).toEqual(['a-dek', 'b-dek']);
      await keys.export('a-dek', 1);
      expect(await unfetched(kms)).toEqual(['b-dek']);
      await keys.export('b-dek', 1);
      expect(await unfetched(kms)).toEqual([]);
      const answer = await retire(kms);
      const receipt = retiredKekSchema.strict().parse(answer.json());
      expect((await kms.records())[receipt.audit.seq - 1]).toMatchObject({
        hash: receipt.audit.hash,
        severity: 'CRITICAL',
        action: 'kek.retire',
        detail: { kek_id: kekIdOfText(old), accept_unfetched: false, accept_damaged: false },
      });
      expect((await statusOf(kms)).keks[0]).toMatchObject({ state: 'retired' });
      // A repetition has the same record, and adds none.
      expect((await retire(kms)).json()).toEqual(receipt);
      const retirements = (await kms.records()).filter(
        ({ action, outcome }) => action === 'kek.retire' && outcome === 'allowed',
      );
      expect(retirements).toHaveLength(1);
      const token = await kms.fullToken();
      const back = await kms.api('/v1/kek/rotate', { token, body: { kek_id: kekIdOfText(old) } });
      expect(back.json()).toMatchObject({ code: 'kek_unusable', detail: 'the KEK is retired' });
      for (const bytes of former) expect(await isStored(bytes)).toBe(false);
      for (const bytes of former) expect(await isStored(bytes.subarray(21))).toBe(false);
    }
    await using kms = await start(further);
    const keys = await KeyCalls.of(kms);
    for (const [id, key] of exported) {
      const [name, version] = id.split(' ') as [string, string];
      expect(keyIn(await keys.export(name, Number(version))).key_material_b64).toBe(key.key_material_b64);
    }
    expect((await keys.export('never-dek', 1)).status).toBe(200);
    expect(await kms.verify()).toMatchObject({ intact: true });
    await kms.running.close();
    expect(await openBare({ dataDir, ring: old })).toMatchObject({ kind: 'sealed' });
  });

  it('can be forced although holders have not fetched, and works for a KEK that was never used', async () => {
    const third = newKek();
    await using kms = await start(`${old}\n${further}\n${third}`);
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    await keys.export('a-dek');
    await rotateKeks(kms, kekIdOfText(further));
    expect((await retire(kms, { accept_unfetched: true })).status).toBe(200);
    expect((await retire(kms, { kek_id: kekIdOfText(third) })).status).toBe(200);
    expect((await statusOf(kms)).keks.map(({ state }) => state)).toEqual(['retired', 'current', 'retired']);
    expect((await retire(kms, { kek_id: '0'.repeat(16) })).json()).toMatchObject({
      status: 404,
      code: 'kek_not_found',
    });
  });
});
