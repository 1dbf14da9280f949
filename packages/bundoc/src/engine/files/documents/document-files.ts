import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { COMMIT_BYTES_MAX, type SealedChange } from '../../port/port.ts';
import type { OnProgress } from '../../port/reports.ts';
import type { DocumentState } from '../../port/state.ts';
import type { Disk } from '../disk/disk.ts';

export const DOCS_FOLDER = 'docs';

/** The name of a document's file. */
export function getFileName({ fileName }: DocumentState): string {
  return fileName.toString('hex');
}

/** The path of a document file below the project's folder. */
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
 * @param bytesMax size of the document, if known: any other file is wrong.
 * @returns undefined when there is none, `unsafe` when it is larger or not a regular file.
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

/** Writes the documents of sealed changes to their files, durably; the last change of a document wins. */
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

/** Concurrent file reads. */
const READS_AT_ONCE = 16;

export async function inTurns<T>(
  items: readonly T[],
  onProgress: OnProgress,
  task: (item: T) => Promise<void>,
): Promise<void> {
  for (let at = 0; at < items.length; at += READS_AT_ONCE) {
    onProgress(at, items.length);
    await Promise.all(items.slice(at, at + READS_AT_ONCE).map(task));
  }
  onProgress(items.length, items.length);
}
