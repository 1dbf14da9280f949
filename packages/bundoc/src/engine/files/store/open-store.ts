import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { inSteps } from '../../../work/in-steps.ts';
import { ownWork } from '../../../work/scheduler.ts';
import { SealBudget } from '../../port/seal-budget.ts';
import { INDEX_FILE, readIndexes, type StoredIndexes } from '../catalog/index-file.ts';
import { CatalogDamaged } from '../catalog/snapshot.ts';
import type { Disk } from '../disk/disk.ts';
import { LARGE_FILE_BYTES_MAX } from '../disk/disk.ts';
import type { DocumentWriter } from '../documents/document-writer.ts';
import { PartsDamaged } from '../log/sealed-part.ts';
import { type EnginePort, FileStore, type FileStoreOptions } from './file-store.ts';
import { type LoadedFolder, type LogOfProjects, loadProject, type StorePlace } from './project-loader.ts';

export interface StoreOptions extends FileStoreOptions {
  readonly disk: Disk;
  /** Names in the project's folder, if the caller has just listed it. */
  readonly entries?: readonly string[] | undefined;
}

/** The dependencies of a store. */
export interface OpenOn {
  readonly log: LogOfProjects;
  readonly writer: DocumentWriter;
  readonly engine: EnginePort;
}

/**
 * Opens the store of a project as of its last acknowledged commit: the snapshot of the catalog, then the
 * later parts of the log. The first opening in a process rewrites the document files from the log, because a
 * crash may have torn some.
 *
 * @throws AppError `project_damaged`, whose cause names what is missing or damaged.
 */
export async function openStore(
  options: StoreOptions,
  { log, writer, engine }: OpenOn,
): Promise<{ readonly store: FileStore; readonly loaded: LoadedFolder }> {
  const { project, directory, cipher } = options;
  const loaded = await load({ ...options, log });
  const { catalog, idempotencyRecords, sealedByFile, sealCounts } = loaded.store;
  using work = (options.ownWork ?? ownWork(project))('snapshot');
  await inSteps(catalog.finishLoading(), work);
  const seals = new SealBudget(options.sealLimits, cipher.version, sealCounts);
  const indexes = loaded.hasIndexes ? await loadIndexes(options, catalog.lastSeq) : undefined;
  const files = writer.of(project, directory);
  const { handle, covered, last, versions } = loaded;
  const parts = { handle, catalog, idempotencyRecords, files, seals, indexes, covered, last, versions };
  const store = new FileStore(options, parts, engine);
  if (!files.isUpToDate)
    for (const [fileName, sealed] of sealedByFile) {
      // The cache may lack a commit whose outcome was unknown, but which the log has.
      options.cache.delete(project, fileName);
      if (sealed === undefined) files.remove(fileName);
      else files.put(fileName, Buffer.from(sealed));
    }
  files.isUpToDate = true;
  return { store, loaded };
}

/** The stored indexes; undefined when they are unusable and must be rebuilt from the documents. */
async function loadIndexes(
  { disk, directory, project, cipher }: StoreOptions,
  lastSeq: number,
): Promise<StoredIndexes | undefined> {
  const path = join(directory, INDEX_FILE);
  using file = await disk.openToRead(path, LARGE_FILE_BYTES_MAX).catch((error: unknown) => {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  });
  const stored = file && (await readIndexes(project, cipher, file));
  // Indexes ahead of the catalog belong to another history.
  return stored !== undefined && stored.asOf <= lastSeq ? stored : undefined;
}

async function load(place: StorePlace): Promise<LoadedFolder> {
  try {
    return await loadProject(place);
  } catch (error) {
    if (error instanceof CatalogDamaged || error instanceof PartsDamaged)
      throw new AppError('project_damaged', { cause: error });
    throw error;
  }
}
