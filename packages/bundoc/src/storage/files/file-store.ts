import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { OpenError } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { AppError } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import {
  composeStoredText,
  type DocumentRef,
  REV_LENGTH,
  readStoredMetadata,
} from '../../cipher/stored-text.ts';
import { KeyedMutex } from '../../keyed-mutex.ts';
import type { CommitResult, ProjectStore, StoredDocument, Write } from '../port.ts';
import { requirePrecondition } from '../precondition.ts';
import { type Disk, makeDirectoryDurably, replaceFile, syncNames, UnknownOutcome } from './disk.ts';

export interface FileStoreOptions {
  readonly disk: Disk;
  /** The project's folder; `docs` and `tmp` lie in it. */
  readonly directory: string;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  /** Told of every document file that does not open, by its (opaque) name. */
  readonly onIntegrityError: (fileName: string) => void;
}

/** Writes that may be under way or waiting in one project. */
export const WRITES_WAITING_MAX = 1_024;

/**
 * The simple store: one durable file a document, `docs/<first two characters>/<file name>`, written beside and renamed
 * into place. One fsync for the content and one for the folder make a write durable before it is acknowledged.
 */
export class FileStore implements ProjectStore {
  readonly #options: FileStoreOptions;
  readonly #writes = new KeyedMutex();
  readonly #durableDirectories = new Set<string>();
  #writesWaiting = 0;
  #failed = false;

  constructor(options: FileStoreOptions) {
    this.#options = options;
  }

  get failed(): boolean {
    return this.#failed;
  }

  async get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    const fileName = this.#options.cipher.fileName(ref);
    // A file that is renamed but not yet synced must not be seen: it could vanish after it was read.
    await this.#writes.settled(fileName);
    this.#requireUsable();
    return this.#read(ref, fileName);
  }

  async commit(write: Write): Promise<CommitResult> {
    if (this.#writesWaiting >= WRITES_WAITING_MAX) throw new AppError('overloaded');
    this.#writesWaiting++;
    try {
      const fileName = this.#options.cipher.fileName(write.ref);
      return await this.#writes.run(fileName, () => this.#apply(write, fileName));
    } catch (error) {
      if (!(error instanceof UnknownOutcome)) throw error;
      this.#failed = true;
      throw new AppError('storage_unavailable', { cause: error });
    } finally {
      this.#writesWaiting--;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writes.drained();
  }

  async #apply(write: Write, fileName: string): Promise<CommitResult> {
    this.#requireUsable();
    if (write.kind === 'delete' && write.precondition.kind === 'none') {
      // Needs no look inside, so that a damaged document can be got rid of.
      await this.#removeFile(fileName);
      return { created: false, metadata: undefined };
    }
    const before = await this.#read(write.ref, fileName);
    requirePrecondition(write.precondition, before?.metadata._rev);
    if (write.kind === 'delete') {
      await this.#removeFile(fileName);
      return { created: false, metadata: undefined };
    }
    const now = new Date(this.#options.clock.now()).toISOString();
    const metadata: DocumentMetadata = {
      _id: write.ref.id,
      _collection: write.ref.collection,
      _rev: randomBytes(REV_LENGTH / 2).toString('hex'),
      _created: before?.metadata._created ?? now,
      _updated: now,
    };
    await this.#writeFile(fileName, composeStoredText(metadata, write.content));
    return { created: before === undefined, metadata };
  }

  async #read(ref: DocumentRef, fileName: string): Promise<StoredDocument | undefined> {
    const sealed = await this.#options.disk.read(this.#pathOf(fileName));
    if (sealed === undefined) return undefined;
    try {
      const text = this.#options.cipher.openDocument(fileName, sealed);
      const metadata = readStoredMetadata(text, ref);
      if (metadata !== undefined) return { metadata, text };
    } catch (error) {
      if (!(error instanceof OpenError)) throw error;
    }
    this.#options.onIntegrityError(fileName);
    throw new AppError('integrity_error');
  }

  async #writeFile(fileName: string, text: Buffer): Promise<void> {
    const { disk, cipher, directory } = this.#options;
    const path = this.#pathOf(fileName);
    const folder = dirname(path);
    if (!this.#durableDirectories.has(folder)) {
      await makeDirectoryDurably(disk, folder);
      this.#durableDirectories.add(folder);
    }
    await replaceFile(disk, join(directory, 'tmp'), path, cipher.sealDocument(fileName, text));
  }

  async #removeFile(fileName: string): Promise<void> {
    const { disk } = this.#options;
    const path = this.#pathOf(fileName);
    if (!(await disk.remove(path))) throw new AppError('document_not_found');
    await syncNames(disk, dirname(path));
  }

  #pathOf(fileName: string): string {
    return join(this.#options.directory, 'docs', fileName.slice(0, 2), fileName);
  }

  #requireUsable(): void {
    if (this.#failed) throw new AppError('storage_unavailable');
  }
}
