import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { expectRefused, kms, latest, NAME, recordOf, s, t, useHolders } from './support/holders.ts';
import type { Answer } from './support/http.ts';
import { keyIn, TestStorageNode } from './support/storages.ts';

useHolders();

describe('a key that its holder offers to another storage', () => {
  it('passes to that storage when it accepts, and offer and acceptance may be repeated', async () => {
    await s.create(NAME);
    const move = randomUUID();
    for (let time = 0; time < 2; time++)
      expect(keyIn(await s.act('offer', NAME, { to: t.id, move }))).toMatchObject({ offered_to: t.id, move });
    expect((await recordOf()).revision).toBe(2);
    for (let time = 0; time < 2; time++)
      expect(keyIn(await t.act('accept', NAME, { move }))).toMatchObject({ holder: t.id });
    expect(await recordOf()).toMatchObject({ revision: 3, holder: t.id, offer: null });
    expect(await latest('key.accept')).toMatchObject({
      severity: 'CRITICAL',
      detail: { holder: t.id, from: s.id, move },
    });
    expectRefused(await s.export(NAME), 409, 'key_held_elsewhere', { storage: t.id });
    expect((await t.export(NAME)).status).toBe(200);
    expectRefused(await s.act('withdraw', NAME, { move }), 409, 'key_held_elsewhere', { storage: t.id });
  });

  it('cannot be accepted after the answer to the withdrawal of its offer', async () => {
    await s.create(NAME);
    const [move, other] = [randomUUID(), randomUUID()];
    await s.act('offer', NAME, { to: t.id, move });
    expect(keyIn(await s.act('withdraw', NAME, { move: other })).offered_to).toBe(t.id);
    for (let time = 0; time < 2; time++)
      expect(keyIn(await s.act('withdraw', NAME, { move })).offered_to).toBeUndefined();
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    expect((await s.export(NAME)).status).toBe(200);
  });

  it('cannot be accepted once its holder has advanced, however late its offer arrived, until it is offered again', async () => {
    await s.create(NAME);
    const move = randomUUID();
    const late = s.copy();
    expect((await s.act('offer', NAME, { to: t.id, move })).status).toBe(200);
    await s.advance();
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    keyIn(await s.act('withdraw', NAME, { move }));
    expectRefused(await late.act('offer', NAME, { to: t.id, move }), 409, 'storage_superseded');
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    expect((await s.export(NAME)).status).toBe(200);
    keyIn(await s.act('offer', NAME, { to: t.id, move }));
    expect(keyIn(await t.act('accept', NAME, { move }))).toMatchObject({ holder: t.id });
  });

  it('is accepted before its holder advances or not at all, even when both happen at the same time', async () => {
    for (let round = 0; round < 6; round++) {
      const name = `k${round}-dek`;
      const move = randomUUID();
      await s.create(name);
      await s.act('offer', name, { to: t.id, move });
      const calls = [() => t.act('accept', name, { move }), () => s.advance()];
      const answers = await Promise.all((round % 2 === 0 ? calls : calls.toReversed()).map((call) => call()));
      const accepted = answers.at(round % 2 === 0 ? 0 : 1);
      const { holder } = await recordOf(name);
      expect(accepted?.status).toBe(holder === t.id ? 200 : 409);
      const records = await kms.records();
      const accept = records.findLast(({ action, key }) => action === 'key.accept' && key === name);
      const advance = records.findLast(({ action }) => action === 'storage.advance');
      if (accept !== undefined) expect(accept.seq).toBeLessThan(advance?.seq ?? 0);
    }
  });

  it('can be accepted only by the storage of its latest offer', async () => {
    await s.create(NAME);
    const other = await TestStorageNode.of(kms);
    const [first, second] = [randomUUID(), randomUUID()];
    await s.act('offer', NAME, { to: t.id, move: first });
    await s.act('offer', NAME, { to: other.id, move: second });
    const answers = await Promise.all([
      t.act('accept', NAME, { move: first }),
      other.act('accept', NAME, { move: second }),
      t.act('accept', NAME, { move: second }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([409, 200, 409]);
    expect((await recordOf()).holder).toBe(other.id);
  });

  it('is either accepted or withdrawn when both are requested at the same time, and both callers learn which', async () => {
    for (let round = 0; round < 8; round++) {
      const name = `k${round}-dek`;
      const move = randomUUID();
      await s.create(name);
      await s.act('offer', name, { to: t.id, move });
      const calls = [() => s.act('withdraw', name, { move }), () => t.act('accept', name, { move })];
      const [withdrawn, accepted] = (await Promise.all(
        (round % 2 === 0 ? calls : calls.toReversed()).map((call) => call()),
      ).then((answers) => (round % 2 === 0 ? answers : answers.toReversed()))) as [Answer, Answer];
      const { holder } = await recordOf(name);
      expect([withdrawn.status, accepted.status]).toEqual(holder === t.id ? [409, 200] : [200, 409]);
      if (holder === t.id) expectRefused(withdrawn, 409, 'key_held_elsewhere', { storage: t.id });
      else expectRefused(accepted, 409, 'key_not_offered');
    }
  });
});
