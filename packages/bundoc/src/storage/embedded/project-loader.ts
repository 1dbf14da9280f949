import { join } from 'node:path';
import { lineOf } from '@bundoc/shared/error-line';
import { hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import { Catalog } from './catalog.ts';
import { type Disk, LARGE_FILE_BYTES_MAX } from './disk.ts';
import { readRecords } from './record.ts';
import type { SealCount } from './seal-budget.ts';
import { CATALOG_FILE, CatalogDamaged, decodeSnapshot, type SnapshotHead } from './snapshot.ts';
import { UsedKeys } from './used-keys.ts';

/** Where a project's store lies, and what opens it. */
export interface StorePlace {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  readonly disk: Disk;
  readonly cipher: ProjectCipher;
}

/** A project's store in memory: its catalog, brought forward by the frames that were replayed. */
export class LoadedStore {
  readonly catalog = new Catalog();
  readonly usedKeys = new UsedKeys();
  /** Seals by key version, as far as they were ever durable; the highest of a version counts. */
  readonly sealCounts: SealCount[] = [];
  /** Latest bytes of each file that the journal knows; undefined for a file that is to be gone. */
  readonly sealedByFile = new Map<string, Buffer | undefined>();

  /** Takes over what one frame of the journal says. Sealed bytes are views of the frame. */
  replay(frame: Buffer): void {
    for (const record of readRecords(frame)) {
      if (record.kind === 'used key') this.usedKeys.add(record.used);
      if (record.kind === 'seals') this.sealCounts.push(record.seals);
      if (record.kind !== 'document') continue;
      const { state, sealed } = record;
      this.catalog.apply(state);
      this.sealedByFile.set(state.fileName.toString('hex'), state.deletedMs === 0 ? sealed : undefined);
    }
  }
}

/**
 * Reads the catalog and changes nothing on the disk. The journal is to be replayed from `head.start`.
 *
 * @throws CatalogDamaged when it is missing or does not open.
 */
export async function loadSnapshot({ project, directory, disk, cipher }: StorePlace): Promise<{
  readonly store: LoadedStore;
  readonly head: SnapshotHead;
}> {
  const snapshot = await disk
    .read(join(directory, CATALOG_FILE), LARGE_FILE_BYTES_MAX)
    .catch((error: unknown) => {
      if (hasCode(error, 'project_damaged')) throw new CatalogDamaged(lineOf(error.cause));
      throw error;
    });
  if (snapshot === undefined) throw new CatalogDamaged('the catalog is missing');
  const store = new LoadedStore();
  const head = decodeSnapshot(project, cipher, snapshot, {
    state: (state) => store.catalog.apply(state),
    usedKey: (used) => store.usedKeys.add(used),
  });
  store.sealCounts.push(...head.seals);
  store.catalog.restore(Math.max(head.lastSeq, store.catalog.lastSeq), head.purgedSeq);
  return { store, head };
}
