import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { DELETION_FILE, PROJECT_FILE, PROJECT_FILE_COPY } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import {
  emptyMarkedFolder,
  putAwayMoved,
  readMoveMark,
  removeMoveMark,
  writeMoveMark,
} from '../project/moved-folder.ts';
import { isWithoutContent } from '../project/project-folder.ts';
import { Catalog } from '../storage/embedded/catalog.ts';
import { type Disk, makeDirectoryDurably, replaceFile } from '../storage/embedded/disk.ts';
import {
  DOCS_FOLDER,
  documentPath,
  openOwnDocument,
  putDocuments,
  readDocumentFile,
} from '../storage/embedded/document-files.ts';
import { NO_SEGMENT } from '../storage/embedded/journal.ts';
import type { DocumentState } from '../storage/embedded/record.ts';
import { CATALOG_FILE, encodeSnapshot } from '../storage/embedded/snapshot.ts';
import { inTurns, nameOf, type OnProgress } from '../storage/embedded/verify.ts';
import type { Position, SealedChange } from '../storage/port.ts';
import { type LastOfProject, type MoveCounts, MoveFailed, type MoveTarget } from './move-project.ts';

export interface IncomingFolderOptions {
  readonly project: string;
  /** The project's folder; its parent exists. */
  readonly directory: string;
  /** Where what an earlier move left there is put: a folder that is made below an existing one. */
  readonly keptIn: string;
  readonly disk: Disk;
  /** Of the versions that the project has now. */
  readonly cipher: () => ProjectCipher;
}

/** The folder of a project that is brought in, in a data folder that this process has to itself. */
export class IncomingFolder implements MoveTarget {
  readonly #options: IncomingFolderOptions;
  readonly #catalog = new Catalog();

  constructor(options: IncomingFolderOptions) {
    this.#options = options;
  }

  async begin(mark: string, isOurs: (mark: string) => Promise<boolean>): Promise<void> {
    const { project, directory, keptIn, disk } = this.#options;
    const names = (await disk.list(directory)) ?? [];
    const present = await readMoveMark(disk, directory);
    if (names.includes(DELETION_FILE)) throw new MoveFailed(`${project} was deleted there`);
    if (present !== undefined && (await isOurs(present)))
      await putAwayMoved(disk, directory, keptIn, `${project}-${randomUUID()}`);
    else if (present !== undefined || !(await isWithoutContent(disk, directory)))
      throw new MoveFailed(`there is a folder of ${project} already`);
    await makeDirectoryDurably(disk, directory);
    await writeMoveMark(disk, directory, mark);
    for (const name of ['tmp', DOCS_FOLDER, 'journal']) await disk.makeDirectory(join(directory, name));
    await disk.syncDirectory(directory);
  }

  async put(changes: readonly SealedChange[]): Promise<void> {
    const { disk, directory } = this.#options;
    await putDocuments(disk, directory, changes);
    for (const { state } of changes) this.#catalog.apply(state);
  }

  async verify(after: Position, onProgress: OnProgress): Promise<void> {
    const states = [...this.#catalog.states()].filter(({ seq, deletedMs }) => seq > after && deletedMs === 0);
    await inTurns(states, onProgress, (state) => this.#verifyOne(state));
  }

  async finish(last: LastOfProject, mark: string): Promise<MoveCounts> {
    const { project, disk, directory, cipher } = this.#options;
    const { file, lastSeq, purgedSeq, seals, usedKeys } = last;
    const tmp = join(directory, 'tmp');
    await disk.syncDirectory(join(directory, DOCS_FOLDER));
    const head = { start: { firstLive: 1, before: NO_SEGMENT }, lastSeq, purgedSeq, seals };
    const snapshot = encodeSnapshot(project, cipher(), head, usedKeys, this.#catalog);
    await replaceFile(disk, tmp, join(directory, CATALOG_FILE), snapshot);
    for (const name of [PROJECT_FILE_COPY, PROJECT_FILE])
      await replaceFile(disk, tmp, join(directory, name), Buffer.from(file));
    await writeMoveMark(disk, directory, mark);
    let [documents, bytes] = [0, 0];
    for (const collection of this.#catalog.collections()) {
      documents += collection.documents;
      bytes += collection.bytes;
    }
    return { documents, bytes };
  }

  async open(): Promise<void> {
    await removeMoveMark(this.#options.disk, this.#options.directory);
  }

  async discard(): Promise<void> {
    const { disk, directory } = this.#options;
    await emptyMarkedFolder(disk, directory);
    await removeMoveMark(disk, directory);
  }

  async #verifyOne(state: DocumentState): Promise<void> {
    const { disk, directory, cipher } = this.#options;
    const name = nameOf(state);
    const sealed = await readDocumentFile(disk, directory, documentPath(name), state.size);
    const opened = Buffer.isBuffer(sealed) ? openOwnDocument(cipher(), name, sealed) : undefined;
    const isSame =
      opened !== undefined &&
      'metadata' in opened &&
      opened.metadata._rev === state.rev.toString('hex') &&
      sealed?.length === state.size;
    if (!isSame) throw new MoveFailed(`${documentPath(name)} is not there as it was copied`);
  }
}
