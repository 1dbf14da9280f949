import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { openOwnDocument } from '../../open-document.ts';
import type { Finding, OnProgress, VerifiedStore } from '../../port/reports.ts';
import type { DocumentState } from '../../port/state.ts';
import { CatalogDamaged } from '../catalog/snapshot.ts';
import {
  documentPath,
  getFileName,
  inTurns,
  listDocumentFiles,
  readDocumentFile,
} from '../documents/document-files.ts';
import { PartsDamaged } from '../log/sealed-part.ts';
import { type LoadedStore, loadProject, type StorePlace } from '../store/project-loader.ts';

const NO_DOCUMENT = 'is no regular file, or larger than any document';

/**
 * Decrypts and checks everything in a store: the catalog, its parts of the log and each document. It also
 * looks for stray files. Read only: remains of a crash stay. No one else may write to the project.
 */
export async function verifyStore(place: StorePlace, onProgress: OnProgress): Promise<VerifiedStore> {
  const findings: Finding[] = [];
  const loaded = await loadForChecks(place, findings);
  // Created with the first document file, which may still be only in the log.
  const paths = (await listDocumentFiles(place.disk, place.directory)) ?? [];
  if (loaded === undefined) {
    await checkUnlisted(place, paths, findings, onProgress);
    return { documents: 0, findings };
  }
  const living = [...loaded.catalog.states()].filter(({ deletedMs }) => deletedMs === 0);
  await inTurns(living, onProgress, async (state) => {
    const problem = await checkDocument(place, state, loaded);
    if (problem !== undefined) findings.push({ part: documentPath(getFileName(state)), problem });
  });
  const known = new Set(living.map((state) => documentPath(getFileName(state))));
  for (const [fileName, sealed] of loaded.sealedByFile)
    if (sealed === undefined) known.add(documentPath(fileName));
  for (const path of paths)
    if (!known.has(path)) findings.push({ part: path, problem: 'a stray file, of no document' });
  return { documents: living.length, findings };
}

/** @returns undefined when the catalog or the later parts of the log are damaged. */
async function loadForChecks(place: StorePlace, findings: Finding[]): Promise<LoadedStore | undefined> {
  try {
    return (await loadProject(place)).store;
  } catch (error) {
    if (error instanceof CatalogDamaged) findings.push({ part: CATALOG_FILE, problem: error.message });
    else if (error instanceof PartsDamaged) findings.push({ part: 'log', problem: error.message });
    else throw error;
    return undefined;
  }
}

/**
 * The fault of a document, or undefined. While its file is behind, its bytes in the log are checked instead.
 */
async function checkDocument(
  { disk, directory, cipher }: StorePlace,
  state: DocumentState,
  { sealedByFile }: LoadedStore,
): Promise<string | undefined> {
  const fileName = getFileName(state);
  if (fileName !== cipher.fileName(state)) return 'the catalog has the document under another name';
  const inFile = await readDocumentFile(disk, directory, documentPath(fileName));
  const problem =
    inFile === undefined ? 'the file is missing' : inFile === 'unsafe' ? NO_DOCUMENT : problemOfBytes(inFile);
  if (problem === undefined) return undefined;
  const inLog = sealedByFile.get(fileName);
  return inLog === undefined ? problem : problemOfBytes(inLog);

  function problemOfBytes(sealed: Buffer): string | undefined {
    const opened = openOwnDocument(cipher, fileName, sealed);
    if ('fault' in opened) return opened.fault;
    if (opened.metadata._rev !== state.rev.toString('hex'))
      return 'holds another revision than the catalog knows';
    return sealed.length === state.size ? undefined : 'has another size than the catalog knows';
  }
}

/** Without a catalog, each file can still be checked against its own content. */
async function checkUnlisted(
  { disk, directory, cipher }: StorePlace,
  paths: readonly string[],
  findings: Finding[],
  onProgress: OnProgress,
): Promise<void> {
  await inTurns(paths, onProgress, async (path) => {
    const fileName = path.slice(path.lastIndexOf('/') + 1);
    const sealed = await readDocumentFile(disk, directory, path);
    if (sealed === 'unsafe') {
      findings.push({ part: path, problem: NO_DOCUMENT });
      return;
    }
    if (path !== documentPath(fileName) || sealed === undefined) {
      findings.push({ part: path, problem: 'a stray file, of no document' });
      return;
    }
    const opened = openOwnDocument(cipher, fileName, sealed);
    if ('fault' in opened) findings.push({ part: path, problem: opened.fault });
  });
}
