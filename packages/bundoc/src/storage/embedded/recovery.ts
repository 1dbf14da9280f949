import { join } from 'node:path';
import { AppError } from '@bundoc/shared/errors';
import { Catalog } from './catalog.ts';
import { removeLeftovers, replaceFile } from './disk.ts';
import { CATALOG_FILE, EmbeddedStore, type EmbeddedStoreOptions } from './embedded-store.ts';
import { FileWriter } from './file-writer.ts';
import { Journal, NO_SEGMENT } from './journal.ts';
import { readRecords } from './record.ts';
import { JournalCorrupt } from './segment-reader.ts';
import { CatalogDamaged, decodeSnapshot, encodeSnapshot } from './snapshot.ts';
import { UsedKeys } from './used-keys.ts';

type Place = Pick<EmbeddedStoreOptions, 'project' | 'directory' | 'disk' | 'cipher'>;

/**
 * Makes the folders and the empty catalog of a new project. Once a project has been made, a missing catalog is damage and
 * never a fresh start.
 */
export async function createEmbeddedStore({ project, directory, disk, cipher }: Place): Promise<void> {
  for (const name of ['docs', 'journal']) await disk.makeDirectory(join(directory, name));
  await disk.syncDirectory(directory);
  const head = { start: { firstLive: 1, before: NO_SEGMENT }, lastSeq: 0, purgedSeq: 0 };
  const snapshot = await encodeSnapshot(project, cipher, head, [], []);
  await replaceFile(disk, join(directory, 'tmp'), join(directory, CATALOG_FILE), snapshot);
}

/**
 * Opens the store of a project as it was at its last acknowledged commit: the catalog's snapshot, then the journal from
 * where that says. Files that a crash tore or kept from being written are written again from the journal.
 *
 * @throws AppError `project_damaged`, whose cause says what is missing or damaged.
 */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<EmbeddedStore> {
  const { project, directory, disk, cipher, limits } = options;
  await removeLeftovers(disk, join(directory, 'tmp'));
  // A catalog that was renamed and not synced must not go back to the one before once segments are used again that this one freed.
  await disk.syncDirectory(directory);
  const snapshot = await disk.read(join(directory, CATALOG_FILE));
  const catalog = new Catalog();
  const usedKeys = new UsedKeys();
  /** Latest bytes of each file that the journal knows; undefined for a file that is to be gone. */
  const sealedByFile = new Map<string, Buffer | undefined>();
  let journal: Journal;
  try {
    if (snapshot === undefined) throw new CatalogDamaged('the catalog is missing');
    const head = decodeSnapshot(project, cipher, snapshot, {
      state: (state) => catalog.apply(state),
      usedKey: (used) => usedKeys.add(used),
    });
    catalog.restore(Math.max(head.lastSeq, catalog.lastSeq), head.purgedSeq);
    journal = await Journal.open(
      { disk, directory: join(directory, 'journal'), keys: cipher, segmentBytes: limits.segmentBytes },
      head.start,
      (frame) => {
        for (const record of readRecords(frame)) {
          if (record.kind === 'used key') {
            usedKeys.add(record.used);
            continue;
          }
          const { state, sealed } = record;
          catalog.apply(state);
          sealedByFile.set(state.fileName.toString('hex'), state.deletedMs === 0 ? sealed : undefined);
        }
      },
    );
  } catch (error) {
    if (error instanceof CatalogDamaged || error instanceof JournalCorrupt)
      throw new AppError('project_damaged', { cause: error });
    throw error;
  }
  catalog.finishLoading();
  let store: EmbeddedStore | undefined;
  const writer = new FileWriter({
    disk,
    directory: join(directory, 'docs'),
    backlogBytesMax: limits.backlogBytesMax,
    onFailure: (error) => store?.fileWriterFailed(error),
  });
  store = new EmbeddedStore(options, { catalog, journal, usedKeys, writer });
  for (const [fileName, sealed] of sealedByFile) {
    // The cache may be older: of before a commit whose sync failed, but which is found in the journal.
    options.cache.delete(project, fileName);
    if (sealed === undefined) writer.remove(fileName);
    else writer.put(fileName, Buffer.from(sealed));
  }
  return store;
}
