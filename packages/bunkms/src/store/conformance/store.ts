import { describe, expect, it } from 'vitest';
import { GENESIS } from '../../records/chain.ts';
import type { KmsStore } from '../port.ts';
import { auditConformance } from './audit.ts';
import { chainKey, draft, installation, key, made, rotated, stored } from './data.ts';
import { kekConformance } from './keks.ts';
import { keyConformance } from './keys.ts';
import { allRecords, type MakePlace, type StorePlace, withStore } from './place.ts';
import { storageConformance } from './storages.ts';
import { tokenConformance } from './tokens.ts';
import { transferConformance } from './transfer.ts';

/** The tests that every {@link KmsStore} must pass. Call it in a test file. */
export function storeConformance(name: string, makePlace: MakePlace): void {
  keyConformance(name, makePlace);
  tokenConformance(name, makePlace);
  auditConformance(name, makePlace);
  transferConformance(name, makePlace);
  kekConformance(name, makePlace);
  storageConformance(name, makePlace);

  describe(`${name} as a KmsStore`, () => {
    let store: KmsStore;
    let place: StorePlace;
    withStore(makePlace, (opened, at) => {
      store = opened;
      place = at;
    });

    it('returns its installation, and refuses a second one', async () => {
      expect(await store.readInstallation()).toEqual(installation(1));
      expect(await store.initialise(installation(5), chainKey, made())).toBe(false);
      expect(await store.readInstallation()).toEqual(installation(1));
      expect(await allRecords(store)).toHaveLength(1);
    });

    it('keeps acknowledged writes when it is closed and opened again', async () => {
      const made = key('a-dek');
      await store.insertKey(made);
      await store.close();
      await using again = await place.open();
      expect(await again.findKey('a-dek', 'current')).toMatchObject(stored(made));
      expect((await again.auditHead()).seq).toBe(2);
    });

    it('keeps its keys when it overwrites the bytes of removed ones', async () => {
      await store.insertKey(key('a-dek'));
      expect(await store.scrub()).toBe(true);
      expect(await store.findKey('a-dek', 'current')).toBeDefined();
    });

    it('sees its own writes after the read of an incomplete page', async () => {
      for (let number = 0; number < 5; number++) await store.insertKey(key(`k${number}`));
      await store.listKeys(['*'], { limit: 1 });
      await store.insertKey(key('k9'));
      expect(await store.findKey('k9', 'current')).toBeDefined();
      expect((await store.listKeys(['*'], { after: 'k8', limit: 1 })).items).toHaveLength(1);
    });

    it('refuses every change until it has the chain key', async () => {
      const locked = await place.open();
      try {
        const refused = { code: 'storage_unavailable' };
        await expect(locked.insertKey(key('a-dek'))).rejects.toMatchObject(refused);
        await expect(locked.appendAudit([draft('a')])).rejects.toMatchObject(refused);
        expect(await store.findKey('a-dek', 'all')).toBeUndefined();
        await locked.unlock(chainKey);
        const made = key('a-dek');
        await locked.insertKey(made);
        const stillLocked = await place.open();
        await expect(stillLocked.updateKey(rotated(made))).rejects.toMatchObject(refused);
        await stillLocked.close();
        expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(made));
      } finally {
        await locked.close();
      }
    });

    it('counts its keys and tokens, and probes the storage without a new record', async () => {
      await store.insertKey(key('a-dek'));
      const before = await store.auditHead();
      await store.probe();
      expect(await store.counts()).toEqual({ keys: 1, tokens: 0 });
      expect(await store.auditHead()).toEqual(before);
    });

    it('can be closed more than once, and then refuses every call', async () => {
      await Promise.all([store.close(), store.close()]);
      await store.close();
      await expect(store.auditHead()).rejects.toMatchObject({ code: 'storage_unavailable' });
    });

    it('completes the calls that began before it was closed', async () => {
      const write = store.appendAudit([draft('last')]);
      await store.close();
      expect(await write).toMatchObject([{ seq: 2 }]);
    });
  });

  describe(`an empty ${name}`, () => {
    it('has no installation, and lets exactly one of several processes create it', async () => {
      const place = await makePlace();
      const stores = await Promise.all([place.open(), place.open(), place.open(), place.open()]);
      const [first] = stores;
      try {
        expect(await first.readInstallation()).toBeUndefined();
        expect(await first.auditHead()).toEqual(GENESIS);
        const isMade = await Promise.all(
          stores.map((store, mark) => store.initialise(installation(mark), chainKey, made())),
        );
        expect(isMade.filter(Boolean)).toHaveLength(1);
        const seen = await Promise.all(stores.map((store) => store.readInstallation()));
        for (const one of seen) expect(one).toEqual(installation(isMade.indexOf(true)));
        expect(await allRecords(first)).toHaveLength(1);
      } finally {
        await Promise.all(stores.map((store) => store.close()));
        await place.dispose();
      }
    });
  });
}
