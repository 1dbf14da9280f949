import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { readOwnMetadata } from '../../../crypto/stored-text.ts';
import { COMMIT_BYTES_MAX, type SealedChange } from '../../port.ts';
import type { Disk } from '../disk/disk.ts';

export const DOCS_FOLDER = 'docs';

/** Where a document file lies below the project's folder. */
export function documentPath(fileName: string): string {
  return join(DOCS_FOLDER, fileName);
}

/**
 * Every entry of `docs`, as a path below the project's folder, in order; undefined when there is no such
 * folder.
 */
export async function listDocumentFiles(disk: Disk, directory: string): Promise<string[] | undefined> {
  const names = await disk.list(join(directory, DOCS_FOLDER));
  return names?.sort().map((name) => join(DOCS_FOLDER, name));
}

/**
 * Reads a file below `docs`.
 *
 * @param path below the project's folder.
 * @param bytesMax of the document, if it is known: no other file can be it.
 * @returns undefined when there is none, `unsafe` when it is larger, or no regular file.
 */
export async function readDocumentFile(
  disk: Pick<Disk, 'read'>,
  directory: string,
  path: string,
  bytesMax: number = COMMIT_BYTES_MAX,
): Promise<Buffer | undefined | 'unsafe'> {
  try {
    return await disk.read(join(directory, path), bytesMax);
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return 'unsafe';
    throw error;
  }
}

export type OpenedDocument =
  | { readonly metadata: DocumentMetadata; readonly text: Buffer }
  /** Why the bytes are not the document of their file. */
  | { readonly fault: string };

/**
 * Opens sealed bytes and says whose they are: authentic, of a document, and that document's name is the
 * file's.
 */
export function openOwnDocument(cipher: ProjectCipher, fileName: string, sealed: Buffer): OpenedDocument {
  let text: Buffer;
  try {
    text = cipher.openDocument(fileName, sealed);
  } catch (error) {
    if (error instanceof OpenError) return { fault: 'does not open' };
    throw error;
  }
  const metadata = readOwnMetadata(text);
  if (metadata === undefined) return { fault: 'holds no document' };
  const owner = cipher.fileName({ collection: metadata._collection, id: metadata._id });
  return owner === fileName ? { metadata, text } : { fault: 'holds the document of another file' };
}

/** Puts the documents of sealed changes in their files, durably; of one that comes twice the last. */
export async function putDocuments(
  disk: Disk,
  directory: string,
  changes: readonly SealedChange[],
): Promise<void> {
  const contents = new Map<string, Buffer | undefined>();
  for (const { state, sealed } of changes)
    contents.set(join(directory, documentPath(state.fileName.toString('hex'))), sealed);
  const files = [...contents].map(([path, content]) => ({ path, content }));
  const failures = await disk.writeFiles(files);
  for (const failure of failures) if (failure !== undefined) throw failure;
  await disk.syncFiles(files.map(({ path }) => path));
}
