import { HOLDER_UNKNOWN } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import type { KeyRecord } from '../src/records/key-record.ts';
import { keys, kms, recordOf, s, t, takeOver, useHolders } from './support/holders.ts';
import { type StorageAction, setKey } from './support/storages.ts';

useHolders();

/** The part of a key that matters to its holder. */
type Standing = Pick<KeyRecord, 'state' | 'holder' | 'offer' | 'intendedAt'>;

describe('for every holder, offer and intent of a key', () => {
  const move = '5e4d3c2b-1a0f-4e7d-9c5a-3f1b6e4d2c9a';
  const otherMove = '9a2c4d6e-1b3f-4a5c-8d7e-0f1a2b3c4d5e';
  const at = '2026-01-01T00:00:00.000Z';
  const STATES: Partial<KeyRecord>[] = [
    { state: 'enabled' },
    { state: 'disabled' },
    { state: 'pending_deletion', dueAt: '2999-01-01T00:00:00.000Z' },
    { state: 'pending_deletion', intendedAt: at },
    { state: 'destroyed', destroyedAt: at },
    { state: 'destroyed', destroyedAt: at, intendedAt: at },
  ];

  /** The expected result of an action of `me`: a refusal, or the changes of the key. */
  function expected(
    action: StorageAction | 'export' | 'take-over',
    { state, holder, offer, intendedAt }: Standing,
    me: string,
  ): [number, string] | Partial<Standing> {
    const notMine: [number, string] =
      holder === null || holder === HOLDER_UNKNOWN ? [409, 'key_unheld'] : [409, 'key_held_elsewhere'];
    const isDestroyed = state === 'destroyed';
    if (action === 'content-removed') {
      if (!isDestroyed || intendedAt === null) return [412, 'precondition_failed'];
      if (holder === null) return {};
      return holder === me ? { holder: null } : notMine;
    }
    if (action === 'take-over') {
      if (isDestroyed && (intendedAt === null || holder === null)) return [410, 'key_destroyed'];
      if (!isDestroyed && intendedAt !== null) return [409, 'key_deletion_intended'];
      return { holder: me, offer: null };
    }
    if (action === 'shred' && isDestroyed && intendedAt !== null && holder === me) return {};
    if (isDestroyed) return [410, 'key_destroyed'];
    if (action === 'claim') {
      if (holder === me) return {};
      return holder === null ? { holder: me, offer: null } : notMine;
    }
    if (action === 'accept') {
      if (holder === me) return {};
      return offer?.to === me && offer.move === move ? { holder: me, offer: null } : [409, 'key_not_offered'];
    }
    if (holder !== me) return notMine;
    switch (action) {
      case 'export':
        if (intendedAt !== null) return [409, 'key_deletion_intended'];
        if (state === 'pending_deletion') return [409, 'key_pending_deletion'];
        return state === 'disabled' ? [409, 'key_disabled'] : {};
      case 'offer':
        return intendedAt === null
          ? { offer: { to: otherMove, move, generation: s.generation } }
          : [409, 'key_deletion_intended'];
      case 'withdraw':
        return offer?.move === move ? { offer: null } : {};
      case 'deletion-intent':
        return { state: 'pending_deletion', offer: null, intendedAt: expect.any(String) as string };
      case 'shred':
        return intendedAt === null ? [412, 'precondition_failed'] : { state: 'destroyed' };
    }
  }

  it.each([
    'export',
    'claim',
    'take-over',
    'offer',
    'withdraw',
    'accept',
    'deletion-intent',
    'shred',
    'content-removed',
  ] as const)('the action %s has its effect, or is refused and changes nothing', async (action) => {
    const holders = [null, HOLDER_UNKNOWN, s.id, t.id];
    const offers = [null, { to: s.id, move }, { to: s.id, move: otherMove }, { to: t.id, move }];
    let number = 0;
    for (const state of STATES)
      for (const holder of holders)
        for (const offer of offers) {
          if (offer !== null && (holder === null || holder === HOLDER_UNKNOWN)) continue;
          const name = `k${number++}-dek`;
          await keys.create(name);
          const by = holder === t.id ? t.generation : s.generation;
          const isIntended = action === 'shred' && state.intendedAt !== undefined && !state.destroyedAt;
          const before = await setKey(
            kms,
            name,
            { ...state, holder, offer: offer && { ...offer, generation: by } },
            isIntended ? 'key.deletion_intent' : 'key.update',
          );
          const change = (await kms.store.findKey(name, 'current'))?.lastChange;
          const receipt = { seq: change?.seq, hash: change?.hash };
          const answer =
            action === 'export'
              ? await s.export(name)
              : action === 'take-over'
                ? await takeOver(`keys/${name}`, { storage: s.id })
                : await s.act(action, name, {
                    ...(action === 'offer' ? { to: otherMove, move } : {}),
                    ...(action === 'withdraw' || action === 'accept' ? { move } : {}),
                    ...(action === 'shred' ? { receipt } : {}),
                  });
          const wanted = expected(action, before, s.id);
          const after = await recordOf(name);
          const what = {
            action,
            state: before.state,
            holder,
            offer: before.offer,
            intendedAt: before.intendedAt,
          };
          if (Array.isArray(wanted)) {
            expect({ ...what, status: answer.status, code: answer.json().code }).toEqual({
              ...what,
              status: wanted[0],
              code: wanted[1],
            });
            expect(after).toEqual(before);
          } else {
            const { state: stateBefore, offer: offerBefore, intendedAt } = before;
            const standing = { state: stateBefore, holder, offer: offerBefore, intendedAt };
            expect({ ...what, status: answer.status, text: answer.text }).toEqual({
              ...what,
              status: 200,
              text: expect.any(String),
            });
            expect(after).toMatchObject({ ...standing, ...wanted });
          }
        }
    expect(await kms.verify()).toMatchObject({ intact: true });
  });
});
