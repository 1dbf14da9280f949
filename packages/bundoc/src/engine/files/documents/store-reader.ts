import { BYTE_US } from '@bundoc/shared/admission/account';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type DocumentRef, readStoredMetadata } from '../../../crypto/stored-text.ts';
import { copyOf } from '../../../work/large-bytes.ts';
import type { Work } from '../../../work/work.ts';
import type {
  Awaitable,
  DocumentPage,
  ListedDocument,
  ListQuery,
  Position,
  SealedChange,
  StoredDocument,
} from '../../port/port.ts';
import type { DocumentState } from '../../port/state.ts';
import type { Catalog, ListedPlace, LivingDocument } from '../catalog/catalog.ts';
import type { Disk } from '../disk/disk.ts';
import { documentPath, readDocumentFile } from './document-files.ts';
import type { ProjectFiles } from './project-files.ts';
import type { SealedCache } from './sealed-cache.ts';

/** One state of the documents. Each method throws when it is no longer known. */
export interface StateView {
  /** The state of a document; undefined when it does not exist. */
  stateOf(ref: DocumentRef): LivingDocument | undefined;
  /** Documents of a collection after a position, in the order of creation. */
  after(collection: string, position: Position): Iterable<ListedPlace>;
}

/** Bytes decrypted before other work may get its turn. */
const STEP_BYTES = 131_072;
/** Bytes of documents that are read from files together. */
const READ_BYTES = 1_048_576;

export interface StoreReaderOptions {
  readonly project: string;
  /** The project's folder, which contains `docs`. */
  readonly directory: string;
  readonly disk: Pick<Disk, 'read'>;
  readonly cipher: ProjectCipher;
  readonly cache: SealedCache;
  /** Called with the opaque name of every undecryptable document file. */
  readonly onIntegrityError: (fileName: string) => void;
  /**
   * The position of the last take-over of the storage. The project continues after it, and change feeds
   * cannot resume from an earlier one. Nothing is written for that: BunKMS knows of it.
   */
  readonly positionFloor: () => Position;
}

/**
 * Reads documents of the files engine. The catalog identifies the current state of a document. Its bytes
 * are pending, cached, or in its file. Commits may happen during a read, so its result counts only if the
 * catalog still has that state.
 *
 * A snapshot reads other states through its own {@link StateView}. The bytes of a superseded state are kept.
 */
export class StoreReader {
  readonly #options: StoreReaderOptions;
  readonly #catalog: Catalog;
  readonly #writer: Pick<ProjectFiles, 'pending'>;
  readonly #present: StateView;

  constructor(options: StoreReaderOptions, catalog: Catalog, writer: Pick<ProjectFiles, 'pending'>) {
    this.#options = options;
    this.#catalog = catalog;
    this.#writer = writer;
    this.#present = {
      stateOf: (ref) => catalog.living(ref),
      after: (collection, position) => catalog.list(collection, position),
    };
  }

  /** The position of the last commit. */
  get lastSeq(): Position {
    return Math.max(this.#catalog.lastSeq, this.#options.positionFloor());
  }

  /** The position from which a change feed can resume. */
  get purgedSeq(): Position {
    return Math.max(this.#catalog.purgedSeq, this.#options.positionFloor());
  }

  /** A document whose bytes are in memory; undefined means "unknown", not "absent". */
  getSync(ref: DocumentRef, view: StateView = this.#present): StoredDocument | undefined {
    const living = view.stateOf(ref);
    return living && this.#openInMemory(ref, living);
  }

  /** Rejects with AppError `integrity_error` for an undecryptable document. */
  get(ref: DocumentRef, view: StateView = this.#present): Awaitable<StoredDocument | undefined> {
    const living = view.stateOf(ref);
    return living && (this.#openInMemory(ref, living) ?? this.#read(ref, living, view));
  }

  /** Reads a document that is not in memory. */
  async #read(
    ref: DocumentRef,
    living: LivingDocument,
    view: StateView,
  ): Promise<StoredDocument | undefined> {
    const document = await this.#readFile(ref, living);
    if (document !== undefined) return document;
    // It was overwritten or re-sealed during the read.
    if (!isSame(view.stateOf(ref), living)) return await this.get(ref, view);
    this.#options.onIntegrityError(living.fileName);
    throw new AppError('integrity_error');
  }

  /** As {@link ProjectStore.list}. */
  async list(
    { collection, after, limit, bytesMax, work }: ListQuery,
    view: StateView = this.#present,
  ): Promise<DocumentPage> {
    const places: ListedPlace[] = [];
    let bytes = 0;
    let more = false;
    for (const place of view.after(collection, after)) {
      bytes += place.size;
      if (places.length === limit || (bytes > bytesMax && places.length > 0)) {
        more = true;
        break;
      }
      places.push(place);
    }
    const unreadable: string[] = [];
    // Usually all are in memory, so no promise is needed. Bytes of a changed document do not open as the
    // listed state.
    const found: (ListedDocument | undefined)[] = [];
    // The first step waits for its turn too: the caller has left its own when it awaited the store.
    let stepBytes = Number.POSITIVE_INFINITY;
    for (const place of places) {
      if (stepBytes > STEP_BYTES) {
        stepBytes = 0;
        const turn = work?.pause();
        if (turn !== undefined) await turn;
      }
      stepBytes += place.size;
      found.push(toListed(this.#openInMemory(place, place), place));
    }
    work?.leave();
    await this.#readRest(places, found, unreadable, work, view);
    return {
      documents: found.filter((document) => document !== undefined),
      unreadable,
      next: more ? places.at(-1)?.createdSeq : undefined,
    };
  }

  /** Reads the documents that are not in memory, several at a time, and yields in between. */
  async #readRest(
    places: readonly ListedPlace[],
    found: (ListedDocument | undefined)[],
    unreadable: string[],
    work: Work | undefined,
    view: StateView,
  ): Promise<void> {
    for (let at = 0; at < places.length; ) {
      const reading: Promise<void>[] = [];
      let bytes = 0;
      for (; at < places.length && bytes < READ_BYTES; at++) {
        if (found[at] !== undefined) continue;
        const index = at;
        const place = places[index] as ListedPlace;
        bytes += place.size;
        const read = this.#readListed(place, unreadable, view).then((document) => {
          found[index] = document;
        });
        reading.push(read);
      }
      if (reading.length === 0) return;
      await Promise.all(reading);
      work?.spend(bytes * BYTE_US);
      const turn = at < places.length ? work?.pause() : undefined;
      if (turn !== undefined) await turn;
      work?.leave();
    }
  }

  /** Undefined for a deleted or undecryptable document, which must not break the list. */
  async #readListed(
    place: ListedPlace,
    unreadable: string[],
    view: StateView,
  ): Promise<ListedDocument | undefined> {
    try {
      return toListed(await this.#read(place, place, view), place);
    } catch (error) {
      if (!hasCode(error, 'integrity_error')) throw error;
      unreadable.push(place.id);
      return undefined;
    }
  }

  /** Documents and tombstones that changed after a position, in the order of their changes. */
  changedAfter(position: Position): Generator<DocumentState> {
    return this.#catalog.changes(position);
  }

  /**
   * Undefined when the bytes are not in memory, or are those of another state. Pending bytes are put into the
   * cache, so that the next read needs no file.
   */
  #openInMemory(ref: DocumentRef, living: LivingDocument): StoredDocument | undefined {
    const { cache, project } = this.#options;
    const { fileName, kept } = living;
    if (kept !== undefined) return kept.sealed && this.#open(ref, living, kept.sealed);
    const cached = cache.get(project, fileName);
    const document = cached && this.#open(ref, living, cached);
    if (document !== undefined) return document;
    const pending = this.#writer.pending(fileName);
    const written = pending && this.#open(ref, living, pending);
    // Pending bytes are a view of a whole part of the log, which a cache must not keep in memory.
    if (pending !== undefined && written !== undefined) cache.set(project, fileName, copyOf(pending));
    return written;
  }

  /** Pending sealed bytes, or a copy of cached ones. */
  #inMemory({ fileName }: LivingDocument): Buffer | undefined {
    const { cache, project } = this.#options;
    const pending = this.#writer.pending(fileName);
    if (pending !== undefined) return pending;
    const cached = cache.get(project, fileName);
    return cached && copyOf(cached);
  }

  /** Sealed bytes of the present state of a document, if they are in memory; the caller owns them. */
  sealedInMemory(living: LivingDocument): Buffer | undefined {
    const { cache, project } = this.#options;
    const found = this.#writer.pending(living.fileName) ?? cache.get(project, living.fileName);
    return found && copyOf(found);
  }

  /** The content of a document's file. */
  async readSealedFile({ fileName, size }: LivingDocument): Promise<Buffer | undefined> {
    const { disk, directory } = this.#options;
    const sealed = await readDocumentFile(disk, directory, documentPath(fileName), size);
    return Buffer.isBuffer(sealed) ? sealed : undefined;
  }

  async #readFile(ref: DocumentRef, living: LivingDocument): Promise<StoredDocument | undefined> {
    const { cache, project } = this.#options;
    const { fileName, kept } = living;
    if (kept !== undefined) {
      const former = await kept.read();
      return former && this.#open(ref, living, former);
    }
    const sealed = await this.readSealedFile(living);
    const document = sealed && this.#open(ref, living, sealed);
    if (sealed === undefined || document === undefined) return undefined;
    // After an overwrite or a re-sealing during the read, the older bytes must not enter the cache.
    if (this.#isCurrent(ref, living)) cache.set(project, fileName, sealed);
    else freeMemory(sealed);
    return document;
  }

  /** Whether the catalog still has this state of a document, sealed under the same key version. */
  #isCurrent(ref: DocumentRef, living: LivingDocument): boolean {
    return isSame(this.#catalog.living(ref), living);
  }

  /**
   * The authenticated bytes of a document with its state, under the key version that the state has now;
   * undefined when it was overwritten or deleted since.
   */
  async readSealed({ seq, collection, id }: DocumentState): Promise<SealedChange | undefined> {
    const ref = { collection, id };
    const { onIntegrityError } = this.#options;
    for (;;) {
      const state = this.#catalog.get(ref);
      const living = this.#catalog.living(ref);
      if (state?.seq !== seq || living === undefined) return undefined;
      const { fileName } = living;
      const sealed = this.#inMemory(living) ?? (await this.readSealedFile(living));
      // It was re-sealed, overwritten or deleted during the read.
      if (!this.#isCurrent(ref, living)) continue;
      if (sealed !== undefined && this.#open(ref, living, sealed, true) !== undefined)
        return { state: { ...state, size: sealed.length }, sealed };
      onIntegrityError(fileName);
      throw new AppError('integrity_error');
    }
  }

  /**
   * The document; undefined when the bytes are not this state of it.
   *
   * @param isExact whether they must be sealed under the key version of the state.
   */
  #open(
    ref: DocumentRef,
    { fileName, keyVersion, rev }: LivingDocument,
    sealed: Buffer,
    isExact = false,
  ): StoredDocument | undefined {
    const { cipher } = this.#options;
    try {
      const text = isExact
        ? cipher.openDocumentOf(fileName, sealed, keyVersion)
        : cipher.openDocument(fileName, sealed, keyVersion);
      const metadata = readStoredMetadata(text, ref);
      return metadata?._rev === rev ? { metadata, text } : undefined;
    } catch (error) {
      if (error instanceof OpenError) return undefined;
      throw error;
    }
  }
}

function isSame(now: LivingDocument | undefined, { seq, keyVersion, kept }: LivingDocument): boolean {
  return now?.seq === seq && now.keyVersion === keyVersion && now.kept === kept;
}

function toListed(
  document: StoredDocument | undefined,
  { createdSeq }: ListedPlace,
): ListedDocument | undefined {
  return document && { ...document, position: createdSeq };
}
