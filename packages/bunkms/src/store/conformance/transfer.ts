import { describe, expect, it } from 'vitest';
import { verifyChain } from '../../records/chain.ts';
import type { KmsStore } from '../port.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import {
  chainKey,
  draft,
  edited,
  installation,
  issueOf,
  key,
  LATER,
  revocationOf,
  rotated,
  token,
} from './data.ts';
import { allRecords, type MakePlace, withStore } from './place.ts';

async function everything(store: KmsStore): Promise<StoreEntry[]> {
  const entries: StoreEntry[] = [];
  for await (const batch of store.readAll()) entries.push(...batch);
  return entries;
}

async function* batches(...all: readonly (readonly LoadEntry[])[]): AsyncGenerator<readonly LoadEntry[]> {
  yield* all;
}

/** The tests that every {@link KmsStore} must pass for complete reads and loads. Call it in a test file. */
export function transferConformance(name: string, makePlace: MakePlace): void {
  describe(`${name} as a KmsStore that is backed up and restored`, () => {
    let store: KmsStore;
    withStore(makePlace, (opened) => {
      store = opened;
    });

    it('reads a consistent snapshot of everything while others write', async () => {
      const [first, other] = [key('a-dek'), key('b-dek')];
      const second = rotated(first);
      await store.insertKey(other);
      await store.insertKey(first);
      await store.updateKey(second);
      const tokens = [token(), token()] as const;
      for (const one of tokens) await store.insertToken(one, issueOf(one));
      await store.revokeFamilies([revocationOf(tokens[0], LATER)]);
      for (let n = 0; n < 3; n++) await store.appendAudit(Array.from({ length: 400 }, () => draft('many')));
      const records = await allRecords(store);
      const read: StoreEntry[] = [];
      for await (const batch of store.readAll()) {
        await store.insertKey(key(`new-${read.length}`));
        await store.revokeFamilies([revocationOf(tokens[1], LATER)]);
        await store.updateKey(edited(other, { state: 'disabled' }));
        read.push(...batch);
      }
      expect(read).toEqual([
        { kind: 'installation', installation: installation(1) },
        ...records.map((record) => ({ kind: 'record', record })),
        { kind: 'key', key: second.record },
        ...[...first.versions, ...second.versions].map((version) => ({ kind: 'version', version })),
        { kind: 'key', key: other.record },
        ...other.versions.map((version) => ({ kind: 'version', version })),
        { kind: 'token', token: { ...tokens[0], revoked_at: LATER } },
        { kind: 'token', token: tokens[1] },
      ]);
    });

    it('releases its snapshot when the reader stops', async () => {
      for await (const batch of store.readAll()) {
        expect(batch.length).toBeGreaterThan(0);
        break;
      }
      await store.insertKey(key('a-dek'));
      expect(await store.scrub()).toBe(true);
    });

    it('fills an empty store with a snapshot, continues its chain, and refuses to fill a store twice', async () => {
      const made = rotated(key('a-dek'));
      await store.insertKey(key('b-dek'));
      await store.insertKey(made);
      await store.insertToken(token(), draft('token.issue'));
      const entries = await everything(store);
      const otherPlace = await makePlace();
      const other = await otherPlace.open();
      try {
        const added = draft('added');
        const all = batches(entries.slice(0, 3), entries.slice(3), [{ kind: 'new-record', draft: added }]);
        expect(await other.load(all, chainKey)).toBe(true);
        const loaded = await everything(other);
        expect(loaded.filter(({ kind }) => kind !== 'record')).toEqual(
          entries.filter(({ kind }) => kind !== 'record'),
        );
        const records = await allRecords(other);
        expect(records.slice(0, -1)).toEqual(await allRecords(store));
        expect(records.at(-1)).toMatchObject(added);
        await other.insertKey(key('c-dek'));
        expect(await verifyChain(chainKey, await allRecords(other))).toMatchObject({ intact: true });
        for (const one of [store, other]) expect(await one.load(batches(entries), chainKey)).toBe(false);
        expect((await other.counts()).keys).toBe(3);
      } finally {
        await other.close();
        await otherPlace.dispose();
      }
    });

    it('is empty after a failed load, whichever entry failed', async () => {
      await store.insertKey(rotated(key('a-dek')));
      await store.insertToken(token(), draft('token.issue'));
      const entries = await everything(store);
      const otherPlace = await makePlace();
      const other = await otherPlace.open();
      try {
        for (let at = 0; at <= entries.length; at++) {
          const failing = async function* () {
            for (const entry of entries.slice(0, at)) yield [entry];
            throw new Error(`failed at ${at}`);
          };
          await expect(other.load(failing(), chainKey)).rejects.toThrow(`failed at ${at}`);
          expect(await everything(other)).toEqual([]);
        }
        // It has no part of an installation.
        await expect(other.load(batches(entries.slice(1)), chainKey)).rejects.toThrow();
        expect(await everything(other)).toEqual([]);
        expect(await other.load(batches(entries), chainKey)).toBe(true);
      } finally {
        await other.close();
        await otherPlace.dispose();
      }
    });

    it('shows no part of a load to others until the load is complete', async () => {
      const entries = await everything(store);
      const otherPlace = await makePlace();
      const [other, observer] = [await otherPlace.open(), await otherPlace.open()];
      // One of its own: its attempt may keep it from reading until it has ended.
      const rival = await otherPlace.open();
      try {
        const initialisations: Promise<unknown>[] = [];
        const watched = async function* () {
          for (const entry of entries) {
            yield [entry];
            expect(await observer.readInstallation()).toBeUndefined();
            if (initialisations.length === 0)
              initialisations.push(
                rival.initialise(installation(7), chainKey, draft('x')).catch(({ code }) => code),
              );
          }
        };
        expect(await other.load(watched(), chainKey)).toBe(true);
        // It waited for the load and found its installation, or timed out.
        expect(await initialisations[0]).toBeOneOf([false, 'storage_unavailable']);
        expect(await observer.readInstallation()).toEqual(installation(1));
        expect(await observer.initialise(installation(7), chainKey, draft('x'))).toBe(false);
      } finally {
        await Promise.all([other.close(), observer.close(), rival.close()]);
        await otherPlace.dispose();
      }
    });
  });
}
