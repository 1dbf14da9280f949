import { join } from 'node:path';
import {
  DELETION_FILE,
  MOVE_FILE,
  PROJECT_FILE,
  PROJECT_FILE_COPY,
} from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import type { MoveMark } from '../project/move-mark.ts';
import { emptyMarkedFolder, markFolder, readMoveMark } from '../project/moved-folder.ts';
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
import {
  type Copied,
  type LastOfProject,
  type MoveCounts,
  MoveFailed,
  type MoveTarget,
} from './move-project.ts';

export interface IncomingFolderOptions {
  readonly project: string;
  /** The project's folder; its parent exists. */
  readonly directory: string;
  readonly disk: Disk;
  /** Of the versions that the project has now. */
  readonly cipher: () => ProjectCipher;
}

/** Reserves the folder of a project that is brought in. Nobody may open the project meanwhile; with the mark, nobody does. @throws MoveFailed. */
export async function reserveFolder(
  { project, directory, disk }: Omit<IncomingFolderOptions, 'cipher'>,
  mark: MoveMark,
): Promise<void> {
  const present = await readMoveMark(disk, project, directory);
  const names = (await disk.list(directory)) ?? [];
  if (names.includes(DELETION_FILE)) throw new MoveFailed(`${project} was deleted there`);
  if (present === undefined && !(await isWithoutContent(disk, directory)))
    throw new MoveFailed(`there is a folder of ${project} already`);
  await makeDirectoryDurably(disk, directory);
  // In one piece, over the mark of a move away from here: there is no moment without one.
  await markFolder(disk, directory, mark);
}

/** Takes the mark away: from then on the project is here, also for a service that runs. May be done again. */
export async function openFolder(disk: Disk, directory: string): Promise<void> {
  await disk.remove(join(directory, MOVE_FILE));
  await disk.syncDirectory(directory);
}

/** The folder of a project that is brought in; reserved. What a copy left that was cut short is not gone on from: what it had of the order is lost. */
export class IncomingFolder implements MoveTarget {
  readonly #options: IncomingFolderOptions;
  readonly #catalog = new Catalog();

  constructor(options: IncomingFolderOptions) {
    this.#options = options;
  }

  async begin(begun: Position): Promise<Copied> {
    const { disk, directory } = this.#options;
    await this.discard();
    for (const name of ['tmp', DOCS_FOLDER, 'journal']) await disk.makeDirectory(join(directory, name));
    await disk.syncDirectory(directory);
    return { position: 0, begun };
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

  async finish({ file, cipher, lastSeq, purgedSeq, seals, usedKeys }: LastOfProject): Promise<MoveCounts> {
    const { project, disk, directory } = this.#options;
    const tmp = join(directory, 'tmp');
    await disk.syncDirectory(join(directory, DOCS_FOLDER));
    const head = { start: { firstLive: 1, before: NO_SEGMENT }, lastSeq, purgedSeq, seals };
    const snapshot = encodeSnapshot(project, cipher, head, usedKeys, this.#catalog);
    await replaceFile(disk, tmp, join(directory, CATALOG_FILE), snapshot);
    for (const name of [PROJECT_FILE_COPY, PROJECT_FILE])
      await replaceFile(disk, tmp, join(directory, name), Buffer.from(file));
    return this.#catalog
      .collections()
      .reduce(
        (sum, { documents, bytes }) => ({ documents: sum.documents + documents, bytes: sum.bytes + bytes }),
        { documents: 0, bytes: 0 },
      );
  }

  async discard(): Promise<void> {
    const { disk, directory } = this.#options;
    await emptyMarkedFolder(disk, directory);
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
