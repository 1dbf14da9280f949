import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { counted } from '@bundoc/shared/cli/counted';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { openOwnDocument } from '../../open-document.ts';
import type { OnProgress } from '../../port/reports.ts';
import { SEAL_LIMITS, type SealCount } from '../../port/seal-budget.ts';
import { type DocumentState, readRecords } from '../../port/state.ts';
import { INDEX_FILE } from '../catalog/index-file.ts';
import { CatalogDamaged, encodeSnapshot } from '../catalog/snapshot.ts';
import { type FileChange, LARGE_FILE_BYTES_MAX, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import { contentOf } from '../disk/file-window.ts';
import { DOCS_FOLDER, documentPath, getFileName } from '../documents/document-files.ts';
import { HANDLE_BYTES } from '../log/layout.ts';
import { PartsDamaged } from '../log/sealed-part.ts';
import { adoptFiles } from './adopt-files.ts';
import { CARRIED_FOLDER, FolderCopied, loadProject } from './project-loader.ts';
import {
  commitsIn,
  type RemainsPlace,
  readFiles,
  type SalvageScan,
  type SeqRange,
  scanForSalvage,
} from './salvage-scan.ts';

export interface RebuildOptions {
  readonly clock: Clock;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  /** The text of `project.json`. */
  readonly projectFile: Buffer;
  /** The end of the names under which replaced files are kept. */
  readonly suffix: string;
  /** Whether to accept the loss of damaged commits that were acknowledged. */
  readonly acceptLoss: boolean;
  readonly onProgress: OnProgress;
}

/** A document that could not be saved. Its collection and id may be unknown. */
export interface LostDocument {
  readonly file: string;
  readonly collection?: string;
  readonly id?: string;
}

export interface Rebuilt {
  /** The faults that were found. Without any, nothing was changed. */
  readonly faults: readonly string[];
  /** The steps of the repair, one phrase each. */
  readonly done: readonly string[];
  /** Sequence numbers of commits that may be lost. */
  readonly lostSeqs: readonly SeqRange[];
  readonly lost: readonly LostDocument[];
  /** Number of documents whose latest revision was only in their file. */
  readonly adopted: number;
  /** The project's new handle in the log. */
  readonly handle: string | undefined;
  /** Handles whose parts are no longer needed. */
  readonly formerHandles: readonly string[];
}

/** Acknowledged commits are damaged, and `acceptLoss` is false. Nothing was changed. */
export class LossNotAccepted extends Error {
  override readonly name = 'LossNotAccepted';
}

/**
 * Repairs a store that cannot be loaded. It writes everything that the catalog, the log and the document
 * files still have into document files and a new catalog. The new catalog has a new handle, so the project
 * no longer uses its earlier parts in the log.
 *
 * The old catalog and all parts stay until the new catalog is renamed into place. So after a crash, the
 * project can be repaired again.
 *
 * @throws LossNotAccepted before anything was changed.
 */
export async function rebuildStore(place: RemainsPlace, options: RebuildOptions): Promise<Rebuilt> {
  const { disk, directory } = place;
  const { suffix, clock } = options;
  const damage = await damageOf(place);
  if (damage === undefined)
    return { faults: [], done: [], lostSeqs: [], lost: [], adopted: 0, handle: undefined, formerHandles: [] };
  const { found, bad } = await readFiles(place, options.onProgress);
  const isCopied = damage instanceof FolderCopied;
  const isOfParts = damage instanceof PartsDamaged && !isCopied;
  const remains = await scanForSalvage(place, found, isOfParts ? damage : undefined);
  const { store, catalogFault, partFaults, lostSeqs } = remains;
  if (partFaults.length > 0 && !options.acceptLoss)
    throw new LossNotAccepted(`${partFaults.join('; ')}; ${sentenceOf(lostSeqs)}`);
  const faults = [catalogFault, ...partFaults, isCopied ? damage.message : undefined].filter(
    (fault) => fault !== undefined,
  );

  const done: string[] = [];
  await makeDirectoryDurably(disk, options.tmp);
  await makeDirectoryDurably(disk, join(directory, DOCS_FOLDER));
  const adopted = adoptFiles(place, remains, found, clock);
  const aside = `${DOCS_FOLDER}${suffix}`;
  const whole = new Map([...found].map(([fileName, { metadata }]) => [fileName, metadata._rev]));
  await quarantine(place, bad, aside);
  await writeFromLog(place, remains, whole);
  const lost = tombstoneMissing(remains, whole, clock);
  const { catalog, idempotencyRecords } = store;
  const living = new Set([...catalog.states()].filter(({ deletedMs }) => deletedMs === 0).map(getFileName));
  const stray = [...whole.keys()].filter((fileName) => !living.has(fileName)).map(documentPath);
  await quarantine(place, stray, aside);
  const kept = [...bad, ...stray];
  if (kept.length > 0) done.push(`kept ${counted(kept.length, 'file')} without a document in ${aside}`);
  for (const path of kept) {
    const isOwned = path === documentPath(basename(path)) && living.has(basename(path));
    if (!isOwned && lost.every(({ file }) => file !== path)) lost.push({ file: path });
  }
  await keepCopy(place, CATALOG_FILE, suffix, done);
  const handle = randomBytes(HANDLE_BYTES).toString('hex');
  const { lastSeq, purgedSeq } = catalog;
  const seals = sealsAfterRepair(place, store.sealCounts);
  const head = { handle, covered: undefined, projectFile: options.projectFile, lastSeq, purgedSeq, seals };
  const snapshot = encodeSnapshot(place.project, place.cipher, head, idempotencyRecords, catalog);
  // The process that created the folder may have been killed before the folder's name was durable.
  await disk.syncDirectory(dirname(directory));
  // The stored indexes belong to the earlier catalog, which may have used the same positions differently.
  await disk.remove(join(directory, INDEX_FILE));
  await replaceFile(disk, options.tmp, join(directory, CATALOG_FILE), snapshot);
  done.push(
    catalogFault === undefined
      ? 'wrote a new catalog'
      : 'rebuilt the catalog from the log and the document files; missing files cannot be detected',
  );
  await setCarriedAside(place, suffix, done);
  const formerHandles = [...remains.parts.handles];
  return { faults, done, lostSeqs, lost, adopted: adopted.length, handle, formerHandles };
}

/** The damage that prevents loading; undefined when the store can be loaded. */
async function damageOf(place: RemainsPlace): Promise<Error | undefined> {
  try {
    await loadProject(place);
    return undefined;
  } catch (error) {
    const isDamage =
      error instanceof CatalogDamaged || error instanceof PartsDamaged || hasCode(error, 'project_damaged');
    if (isDamage) return error as Error;
    throw error;
  }
}

/** Sets aside the files of carried parts, because the new catalog covers them. */
async function setCarriedAside(place: RemainsPlace, suffix: string, done: string[]): Promise<void> {
  const { disk, directory } = place;
  const path = join(directory, CARRIED_FOLDER);
  try {
    const names = await disk.list(path);
    if (names === undefined) return;
    const files = names.map((name) => join(CARRIED_FOLDER, name));
    await quarantine(place, files, `${CARRIED_FOLDER}${suffix}`);
    await disk.removeTree(path);
  } catch (error) {
    // The path is not a folder.
    if (!hasCode(error, 'project_damaged')) throw error;
    await disk.rename(path, `${path}${suffix}`);
  }
  await disk.syncDirectory(directory);
  done.push(`kept the parts of ${CARRIED_FOLDER} in ${CARRIED_FOLDER}${suffix}`);
}

/** Makes a durable copy of a file that is about to be replaced, in the same folder. */
export async function keepCopy(
  { disk, directory }: Pick<RemainsPlace, 'disk' | 'directory'>,
  name: string,
  suffix: string,
  done: string[],
): Promise<void> {
  const [path, kept] = [join(directory, name), join(directory, `${name}${suffix}`)];
  try {
    using file = await disk.openToRead(path, LARGE_FILE_BYTES_MAX);
    if (file === undefined) return;
    await disk.createFile(kept, contentOf(file));
  } catch (error) {
    // Not a regular file, so it is moved.
    if (!hasCode(error, 'project_damaged')) throw error;
    await disk.rename(path, kept);
  }
  await disk.syncDirectory(directory);
  done.push(`kept the old ${name} as ${name}${suffix}`);
}

async function quarantine(
  { disk, directory }: RemainsPlace,
  paths: readonly string[],
  folder: string,
): Promise<void> {
  if (paths.length === 0) return;
  const to = join(directory, folder);
  await makeDirectoryDurably(disk, to);
  for (const path of paths) await disk.rename(join(directory, path), join(to, basename(path)));
  await disk.syncDirectory(to);
  for (const from of new Set(paths.map((path) => dirname(path))))
    await disk.syncDirectory(join(directory, from));
}

function sentenceOf(lostSeqs: Rebuilt['lostSeqs']): string {
  const ranges = lostSeqs.map(({ from, to }) => (to === undefined ? `from ${from} on` : `${from} to ${to}`));
  return `commits ${ranges.join(', ')} may be lost`;
}

/**
 * Restores document files from the parts of the log, and makes all document files durable. Later files stay
 * as they are. It updates `whole`, which has the revision of each file.
 */
async function writeFromLog(
  place: RemainsPlace,
  { store, parts, deleted }: SalvageScan,
  whole: Map<string, string>,
): Promise<void> {
  const { disk, directory, cipher } = place;
  const { catalog } = store;
  const removed: string[] = [];
  for (const state of catalog.states()) {
    const fileName = getFileName(state);
    if (state.deletedMs === 0 || !deleted.has(fileName)) continue;
    const path = join(directory, documentPath(fileName));
    if (await disk.remove(path)) removed.push(path);
    whole.delete(fileName);
  }
  for await (const { plaintext } of commitsIn(place, parts)) {
    if (plaintext === undefined) continue;
    const files = new Map<string, FileChange>();
    for (const record of readRecords(plaintext)) {
      if (record.kind !== 'document' || !isLatest(record.state)) continue;
      const fileName = getFileName(record.state);
      const opened = openOwnDocument(cipher, fileName, record.sealed);
      const rev = record.state.rev.toString('hex');
      if ('fault' in opened || opened.metadata._rev !== rev) continue;
      files.set(fileName, { path: join(directory, documentPath(fileName)), content: record.sealed });
      whole.set(fileName, rev);
    }
    for (const failure of await disk.writeFiles([...files.values()]))
      if (failure !== undefined) throw failure;
  }
  await disk.syncDirectory(join(directory, DOCS_FOLDER));
  // Existing files, too: while the log has its parts, a file need not be durable.
  const kept = [...whole.keys()].map((fileName) => join(directory, documentPath(fileName)));
  await disk.syncFiles([...removed, ...kept]);

  function isLatest(state: DocumentState): boolean {
    const known = catalog.living(state);
    return (
      known !== undefined &&
      known.seq === state.seq &&
      known.keyVersion === state.keyVersion &&
      known.rev === state.rev.toString('hex')
    );
  }
}

/** Turns documents of the catalog that have no file into deletions, which the change feed reports. */
function tombstoneMissing(
  { store }: SalvageScan,
  whole: ReadonlyMap<string, string>,
  clock: Clock,
): LostDocument[] {
  const { catalog } = store;
  const lost: LostDocument[] = [];
  for (const state of [...catalog.states()]) {
    if (state.deletedMs !== 0 || whole.get(getFileName(state)) === state.rev.toString('hex')) continue;
    lost.push({ file: documentPath(getFileName(state)), collection: state.collection, id: state.id });
    catalog.apply({ ...state, seq: catalog.lastSeq + 1, size: 0, deletedMs: Math.max(1, clock.now()) });
  }
  return lost;
}

/**
 * Sets the number of seals of the current key version so high that a rotation is due at the next write. The
 * true number may be lost with the damaged parts.
 */
function sealsAfterRepair({ cipher }: RemainsPlace, known: readonly SealCount[]): SealCount[] {
  return [...known, { version: cipher.version, count: SEAL_LIMITS.rotateAt }];
}
