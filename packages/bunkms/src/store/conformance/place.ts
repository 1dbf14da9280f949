import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { afterEach, beforeEach } from 'vitest';
import type { KmsStore } from '../port.ts';
import { chainKey, installation, made } from './data.ts';

/** One place that stores are kept in. */
export interface StorePlace {
  /** Opens the store of this place; may be called again while another is open, as another process would. */
  open(): Promise<KmsStore>;
  /** Forgets the place. */
  dispose(): Promise<void>;
}

export type MakePlace = () => Promise<StorePlace>;

/** Makes a store, in a place of its own, for each test of a suite. @param use is given it before the test. */
export function withStore(makePlace: MakePlace, use: (store: KmsStore, place: StorePlace) => void): void {
  let opened: { readonly store: KmsStore; readonly place: StorePlace };
  beforeEach(async () => {
    const place = await makePlace();
    opened = { store: await place.open(), place };
    await opened.store.initialise(installation(1), chainKey, made());
    use(opened.store, place);
  });
  afterEach(async () => {
    await opened.store.close();
    await opened.place.dispose();
  });
}

export async function allRecords(store: KmsStore): Promise<readonly AuditRecord[]> {
  return (await store.listAudit({ limit: 10_000 })).items;
}
