import { startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { rotateKek } from '../src/kek/kek-rotation.ts';
import { CLI_CALLER } from '../src/records/caller.ts';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { bytesOf, dataDir, further, keyIn, old, start, startBoth, useKeks } from './support/kek-rings.ts';
import { kekIdOfText, openUnsealed, rotateKeks, statusOf } from './support/keks.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { damagedKeys } from './support/soundness.ts';

useKeks();

describe('a rotation of the KEK with several services', () => {
  it('is refused while another running service lacks the KEK', async () => {
    await using kms = await startBoth();
    {
      await using lacking = await start(old);
      const token = await lacking.fullToken();
      const answer = await kms.api('/v1/kek/rotate', { token, body: {} });
      expect(answer.json()).toMatchObject({
        status: 409,
        code: 'kek_unusable',
        detail: expect.stringMatching(/^a running service lacks the KEK/),
      });
      expect((await statusOf(kms)).current).toBe(kekIdOfText(old));
    }
    expect((await rotateKeks(kms)).current).toBe(kekIdOfText(further));
  });

  it('waits, if the caller allows it, until the other service has stopped or holds the KEK', async () => {
    await using kms = await openUnsealed({ dataDir, ring: `${old}\n${further}` });
    await kms.deps.keks.reload();
    let rotation: Promise<void> | undefined;
    {
      await using _lacking = await start(old);
      await expect(rotateKek(kms.deps, {}, CLI_CALLER)).rejects.toMatchObject({ code: 'kek_unusable' });
      rotation = rotateKek(kms.deps, {}, CLI_CALLER, 60_000);
      expect((await kms.deps.keks.refresh()).current).toBe(kekIdOfText(old));
    }
    await rotation;
    expect((await kms.deps.keks.refresh()).current).toBe(kekIdOfText(further));
  });

  it('takes effect at once in another service: it wraps new keys with the new KEK', async () => {
    await using kms = await startBoth();
    await using other = await startBoth(`${further}\n${old}`);
    const keys = await KeyCalls.of(other);
    await keys.create('a-dek');
    await rotateKeks(kms);
    expect((await keys.create('b-dek')).status).toBe(201);
    expect((await keys.post('a-dek', 'rotate')).status).toBe(200);
    for (const [name, version] of [
      ['a-dek', 1],
      ['a-dek', 2],
      ['b-dek', 1],
    ] as const)
      expect(kekIdOf(bytesOf(keyIn(await keys.export(name, version))))).toBe(kekIdOfText(further));
    expect((await statusOf(other)).keks[0]).toMatchObject({ versions: 0, secrets: 0 });
  });

  it('is done by one of two services: the other does not interfere, and finds nothing left afterwards', async () => {
    {
      // A running service would look for work too, as a fourth process.
      await using kms = await startBoth();
      const keys = await KeyCalls.of(kms);
      for (let number = 0; number < 12; number++) await keys.create(`k${number}`);
    }
    const faulty = { first: new FaultyStore(), late: new FaultyStore() };
    const ring = `${old}\n${further}`;
    await using first = await openUnsealed({ dataDir, ring, batch: 1, decorate: faulty.first.decorate });
    await using second = await openUnsealed({ dataDir, ring, batch: 1 });
    await using late = await openUnsealed({ dataDir, ring, batch: 1, decorate: faulty.late.decorate });
    await second.deps.store.appendAudit([
      {
        time: '2026-01-01T00:00:00.000Z',
        severity: 'CRITICAL',
        action: 'kek.rotate',
        outcome: 'allowed',
        detail: { kek_id: kekIdOfText(further), from: kekIdOfText(old) },
      },
    ]);
    const [begun, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    faulty.first.replaced.updateKeys = async (real, ...args) => {
      begun.resolve();
      await goOn.promise;
      return real(...args);
    };
    const running = startInBackground(first.rewrap.run());
    await begun.promise;
    expect(await second.rewrap.run()).toBe('others are working');
    // It has seen work, but claims it only after it is done.
    faulty.late.replaced.claim = async (real, ...args) => {
      goOn.resolve();
      await running;
      return real(...args);
    };
    expect(await late.rewrap.run()).toBe('nothing to do');
    expect(await running).toBe('done');
    expect(await second.rewrap.run()).toBe('nothing to do');
    const { items } = await second.deps.store.listAudit({ limit: 1_000 });
    expect(items.filter(({ action }) => action === 'kek.rewrap')).toHaveLength(12);
    expect(items.filter(({ action }) => action === 'kek.rewrapped')).toHaveLength(1);
  });
});

describe('a rotation of the KEK among other changes', () => {
  it('runs concurrently with every kind of change, none of which is lost or undone', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    const names = Array.from({ length: 60 }, (_, number) => `k${number}-dek`);
    await Promise.all(names.map((name) => keys.create(name)));
    const rotating = startInBackground(rotateKeks(kms));
    const changes = await Promise.all(
      names.map((name, number) => {
        switch (number % 6) {
          case 0:
            return keys.post(name, 'rotate');
          case 1:
            return keys.post(name, 'disable');
          case 2:
            return keys.shred(name);
          case 3:
            return keys.patch(name, { rotate_after_days: 30 });
          case 4:
            return keys.crypto('encrypt', name, { plaintext_b64: 'AAAA' });
          default:
            return keys.export(name);
        }
      }),
    );
    for (const change of changes) expect(change.status, change.text).toBe(200);
    await rotating;
    expect(await kms.verify()).toMatchObject({ intact: true });
    expect(await damagedKeys(kms)).toEqual([]);
    for (const [number, name] of names.entries()) {
      const exported = await keys.export(name);
      if (number % 6 === 1) expect(exported.json()).toMatchObject({ code: 'key_disabled' });
      else if (number % 6 === 2) expect(exported.json()).toMatchObject({ code: 'key_destroyed' });
      else expect(kekIdOf(bytesOf(keyIn(exported)))).toBe(kekIdOfText(further));
      const record = (await kms.store.findKey(name, 'current'))?.record;
      expect(record?.revision).toBe(number % 6 < 4 ? 2 : 1);
    }
    expect((await statusOf(kms)).keks[0]).toMatchObject({ versions: 0, secrets: 0 });
  });
});
