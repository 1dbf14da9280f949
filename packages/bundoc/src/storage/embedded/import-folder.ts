import { join } from 'node:path';
import { PROJECT_FILE, PROJECT_FILE_COPY } from '@bundoc/shared/contract/project-file';
import type { ProjectContents } from '../project-contents.ts';
import { Catalog } from './catalog.ts';
import { replaceFile } from './disk.ts';
import { DOCS_FOLDER, documentPath } from './document-files.ts';
import { CATALOG_FILE } from './embedded-store.ts';
import { NO_SEGMENT } from './journal.ts';
import type { StorePlace } from './project-loader.ts';
import { encodeSnapshot } from './snapshot.ts';

/** Files that are written together, and their bytes beyond the first. */
const FILES_MAX = 500;
const BYTES_MAX = 4_194_304;

/**
 * Makes a project's folder of its contents, the sealed bytes as they are, durably. The folder does not exist; its parent does.
 *
 * @param file the text of `project.json`.
 */
export async function importFolder(
  { project, directory, disk, cipher }: StorePlace,
  file: string,
  contents: ProjectContents,
  onProgress: (done: number, total: number) => void,
): Promise<void> {
  const tmp = join(directory, 'tmp');
  const docs = join(directory, DOCS_FOLDER);
  for (const path of [directory, tmp, docs, join(directory, 'journal')]) await disk.makeDirectory(path);
  const catalog = new Catalog();
  let files: { path: string; content: Buffer }[] = [];
  let bytes = 0;
  let done = 0;
  const write = async () => {
    for (const error of await disk.writeFiles(files)) if (error !== undefined) throw error;
    await disk.syncFiles(files.map(({ path }) => path));
    files = [];
    bytes = 0;
  };
  for await (const { state, sealed } of contents.entries()) {
    catalog.apply(state);
    if (sealed !== undefined) {
      files.push({ path: join(directory, documentPath(state.fileName.toString('hex'))), content: sealed });
      bytes += sealed.length;
    }
    if (files.length >= FILES_MAX || bytes >= BYTES_MAX) await write();
    onProgress(++done, contents.size);
  }
  await write();
  await disk.syncDirectory(docs);
  const { lastSeq, purgedSeq, seals, usedKeys } = contents;
  const head = { start: { firstLive: 1, before: NO_SEGMENT }, lastSeq, purgedSeq, seals };
  const snapshot = encodeSnapshot(project, cipher, head, usedKeys, catalog);
  await replaceFile(disk, tmp, join(directory, CATALOG_FILE), snapshot);
  for (const name of [PROJECT_FILE_COPY, PROJECT_FILE])
    await replaceFile(disk, tmp, join(directory, name), Buffer.from(file));
}
