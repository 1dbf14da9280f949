import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { afterEach, beforeEach } from 'vitest';
import type { KmsStore } from '../port.ts';
import { chainKey, installation, made } from './data.ts';

/** A location of a store, such as a folder or a database. */
export interface StorePlace {
  /** Opens the store. May be called while another one is open, as by another process. */
  open(): Promise<KmsStore>;
  /** Removes the location. */
  dispose(): Promise<void>;
}

export type MakePlace = () => Promise<StorePlace>;

/**
 * Opens a store in a new location for each test of a suite.
 *
 * @param use receives it before the test.
 */
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
