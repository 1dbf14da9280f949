import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { Catalog } from './catalog.ts';
import { LARGE_FILE_BYTES_MAX, removeLeftovers, replaceFile } from './disk.ts';
import { EmbeddedStore, type EmbeddedStoreOptions } from './embedded-store.ts';
import { FileWriter } from './file-writer.ts';
import { decodeIndexes, INDEX_FILE, type StoredIndexes } from './index-file.ts';
import { Journal, NO_SEGMENT } from './journal.ts';
import { type LoadedStore, loadSnapshot, type StorePlace } from './project-loader.ts';
import { SealBudget } from './seal-budget.ts';
import { JournalCorrupt } from './segment-reader.ts';
import { CATALOG_FILE, CatalogDamaged, encodeSnapshot } from './snapshot.ts';

/**
 * Makes the folders and the empty catalog of a new project. Once a project has been made, a missing catalog is damage and
 * never a fresh start.
 */
export async function createEmbeddedStore({ project, directory, disk, cipher }: StorePlace): Promise<void> {
  for (const name of ['docs', 'journal']) await disk.makeDirectory(join(directory, name));
  await disk.syncDirectory(directory);
  const head = { start: { firstLive: 1, before: NO_SEGMENT }, lastSeq: 0, purgedSeq: 0, seals: [] };
  const snapshot = encodeSnapshot(project, cipher, head, [], new Catalog());
  await replaceFile(disk, join(directory, 'tmp'), join(directory, CATALOG_FILE), snapshot);
}

/**
 * Opens the store of a project as it was at its last acknowledged commit: the catalog's snapshot, then the journal from
 * where that says. Files that a crash tore or kept from being written are written again from the journal.
 *
 * @throws AppError `project_damaged`, whose cause says what is missing or damaged.
 */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<EmbeddedStore> {
  const { project, directory, disk, cipher } = options;
  await removeLeftovers(disk, join(directory, 'tmp'));
  // A catalog that was renamed and not synced must not go back to the one before once segments are used again that this one freed.
  await disk.syncDirectory(directory);
  const { journal, loaded } = await load(options);
  const { catalog, usedKeys, sealedByFile, sealCounts } = loaded;
  catalog.finishLoading();
  let store: EmbeddedStore | undefined;
  const writer = new FileWriter({
    disk,
    directory: join(directory, 'docs'),
    backlog: options.backlog,
    onFailure: (error) => store?.fail(error),
  });
  const seals = new SealBudget(options.sealLimits, cipher.version, sealCounts);
  const indexes = await loadIndexes(options, catalog.lastSeq);
  store = new EmbeddedStore(options, { catalog, journal, usedKeys, writer, seals, indexes });
  for (const [fileName, sealed] of sealedByFile) {
    // The cache may be older: of before a commit whose sync failed, but which is found in the journal.
    options.cache.delete(project, fileName);
    if (sealed === undefined) writer.remove(fileName);
    else writer.put(fileName, Buffer.from(sealed));
  }
  return store;
}

/** What was kept of the indexes; undefined when it is of no use: then they are made of the documents. */
async function loadIndexes(
  { disk, directory, project, cipher }: EmbeddedStoreOptions,
  lastSeq: number,
): Promise<StoredIndexes | undefined> {
  const file = await disk.read(join(directory, INDEX_FILE), LARGE_FILE_BYTES_MAX).catch((error: unknown) => {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  });
  const stored = file && decodeIndexes(project, cipher, file);
  // One that is ahead of the catalog is of another history.
  return stored !== undefined && stored.asOf <= lastSeq ? stored : undefined;
}

async function load(options: EmbeddedStoreOptions): Promise<{ journal: Journal; loaded: LoadedStore }> {
  const { directory, disk, cipher, limits } = options;
  try {
    const { store, head } = await loadSnapshot(options);
    const journal = await Journal.open(
      { disk, directory: join(directory, 'journal'), keys: cipher, segmentBytes: limits.segmentBytes },
      head.start,
      (frame) => store.replay(frame),
    );
    return { journal, loaded: store };
  } catch (error) {
    if (error instanceof CatalogDamaged || error instanceof JournalCorrupt)
      throw new AppError('project_damaged', { cause: error });
    throw error;
  }
}
