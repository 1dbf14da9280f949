import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { SealedChange, StoreMetadata } from '../../port/port.ts';
import { Catalog } from '../catalog/catalog.ts';
import { encodeSnapshot } from '../catalog/snapshot.ts';
import { type Disk, replaceFile } from '../disk/disk.ts';
import { DOCS_FOLDER, putDocuments } from '../documents/document-files.ts';
import { HANDLE_BYTES } from '../log/layout.ts';

export interface SealedFolderOptions {
  readonly disk: Disk;
  /** The project's folder, which exists and has `docs` in it. */
  readonly directory: string;
  /** An existing folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly project: string;
}

/**
 * The folder of a project that is created from the sealed bytes of a backup. It gets a new handle, so that
 * parts of an earlier project with its name do not belong to it.
 */
export class SealedFolder {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #tmp: string;
  readonly #project: string;
  readonly #catalog = new Catalog();

  constructor({ disk, directory, tmp, project }: SealedFolderOptions) {
    this.#disk = disk;
    this.#directory = directory;
    this.#tmp = tmp;
    this.#project = project;
  }

  /** Adds changes in order, durably except for the names in the folder of documents. */
  async put(changes: readonly SealedChange[]): Promise<void> {
    await putDocuments(this.#disk, this.#directory, changes);
    for (const { state } of changes) this.#catalog.apply(state);
  }

  /** Makes the documents durable, and writes the catalog. @returns the project's new handle. */
  async finish(
    cipher: ProjectCipher,
    rest: Pick<StoreMetadata, 'lastSeq' | 'purgedSeq' | 'seals' | 'idempotencyRecords'>,
    projectFile: Buffer,
  ): Promise<string> {
    const { lastSeq, purgedSeq, seals, idempotencyRecords } = rest;
    await this.#disk.syncDirectory(join(this.#directory, DOCS_FOLDER));
    const handle = randomBytes(HANDLE_BYTES).toString('hex');
    const head = { handle, covered: undefined, projectFile, lastSeq, purgedSeq, seals };
    const snapshot = encodeSnapshot(this.#project, cipher, head, idempotencyRecords, this.#catalog);
    await replaceFile(this.#disk, this.#tmp, join(this.#directory, CATALOG_FILE), snapshot);
    return handle;
  }
}
