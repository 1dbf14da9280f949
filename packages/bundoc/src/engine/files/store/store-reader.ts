import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type DocumentRef, readStoredMetadata } from '../../../crypto/stored-text.ts';
import { openingUs } from '../../../work/opening-time.ts';
import type { Work } from '../../../work/work.ts';
import type {
  Awaitable,
  ChangePage,
  DocumentPage,
  ListedDocument,
  ListQuery,
  Position,
  SealedChange,
  SealedPage,
  SealedPageLimits,
  StoredDocument,
} from '../../port.ts';
import type { DocumentState } from '../../state.ts';
import type { Catalog, ListedPlace, LivingDocument } from '../catalog/catalog.ts';
import type { Disk } from '../disk/disk.ts';
import { documentPath, readDocumentFile } from '../documents/document-files.ts';
import type { ProjectFiles } from '../documents/project-files.ts';
import type { SealedCache } from '../documents/sealed-cache.ts';

/** Bytes that are opened before others get their turn. */
const STEP_BYTES = 1_048_576;

export interface StoreReaderOptions {
  readonly project: string;
  /** The project's folder; `docs` lies in it. */
  readonly directory: string;
  readonly disk: Pick<Disk, 'read'>;
  readonly cipher: ProjectCipher;
  readonly cache: SealedCache;
  /** Told of every document file that does not open, by its (opaque) name. */
  readonly onIntegrityError: (fileName: string) => void;
}

/**
 * Reads documents of the embedded engine. The catalog says which state of a document is the present one; its
 * bytes wait for their file, or were used lately, or are read from it, while commits go on: so what was read
 * counts only while the catalog still says so.
 *
 * One class, because each read holds what it opened against the same catalog.
 */
export class StoreReader {
  readonly #options: StoreReaderOptions;
  readonly #catalog: Catalog;
  readonly #writer: Pick<ProjectFiles, 'pending'>;

  constructor(options: StoreReaderOptions, catalog: Catalog, writer: Pick<ProjectFiles, 'pending'>) {
    this.#options = options;
    this.#catalog = catalog;
    this.#writer = writer;
  }

  /** A document whose bytes are in memory; undefined says nothing. */
  getSync(ref: DocumentRef): StoredDocument | undefined {
    const living = this.#catalog.living(ref);
    return living && this.#openInMemory(ref, living);
  }

  /** Rejects with AppError `integrity_error` for one that does not open. */
  get(ref: DocumentRef): Awaitable<StoredDocument | undefined> {
    const living = this.#catalog.living(ref);
    return living && (this.#openInMemory(ref, living) ?? this.#read(ref, living));
  }

  /** A document that is not in memory. */
  async #read(ref: DocumentRef, living: LivingDocument): Promise<StoredDocument | undefined> {
    const document = await this.#readFile(ref, living);
    if (document !== undefined) return document;
    // It was overwritten while it was read; then there is a later state to look at.
    if (this.#catalog.living(ref)?.seq !== living.seq) return await this.get(ref);
    this.#options.onIntegrityError(living.fileName);
    throw new AppError('integrity_error');
  }

  /** As {@link ProjectStore.list}. */
  async list({ collection, after, limit, bytesMax, work }: ListQuery): Promise<DocumentPage> {
    const places: ListedPlace[] = [];
    let bytes = 0;
    let more = false;
    for (const place of this.#catalog.list(collection, after)) {
      bytes += place.size;
      if (places.length === limit || (bytes > bytesMax && places.length > 0)) {
        more = true;
        break;
      }
      places.push(place);
    }
    const unreadable: string[] = [];
    // Mostly all are in memory: then there is nothing to wait for, and no promise is made. What has changed
    // meanwhile does not open as it was.
    const atHand: (ListedDocument | undefined)[] = [];
    let stepBytes = 0;
    for (const place of places) {
      if (stepBytes > STEP_BYTES) {
        stepBytes = 0;
        const turn = work?.pause();
        if (turn !== undefined) await turn;
      }
      stepBytes += place.size;
      atHand.push(listed(this.#openInMemory(place, place), place));
    }
    work?.leave();
    await this.#readRest(places, atHand, unreadable, work);
    return {
      documents: atHand.filter((document) => document !== undefined),
      unreadable,
      next: more ? places.at(-1)?.createdSeq : undefined,
    };
  }

  /** Reads what is not at hand, some of it together, and others have their turns in between. */
  async #readRest(
    places: readonly ListedPlace[],
    atHand: (ListedDocument | undefined)[],
    unreadable: string[],
    work: Work | undefined,
  ): Promise<void> {
    for (let at = 0; at < places.length; ) {
      const reading: Promise<void>[] = [];
      let bytes = 0;
      for (; at < places.length && bytes < STEP_BYTES; at++) {
        if (atHand[at] !== undefined) continue;
        const index = at;
        const place = places[index] as ListedPlace;
        bytes += place.size;
        const read = this.#readListed(place, unreadable).then((document) => {
          atHand[index] = document;
        });
        reading.push(read);
      }
      if (reading.length === 0) return;
      await Promise.all(reading);
      work?.spend(openingUs(bytes));
      const turn = at < places.length ? work?.pause() : undefined;
      if (turn !== undefined) await turn;
      work?.leave();
    }
  }

  /** Undefined for one that has gone, or does not open: it must not keep the others from being listed. */
  async #readListed(place: ListedPlace, unreadable: string[]): Promise<ListedDocument | undefined> {
    try {
      return listed(await this.#read(place, place), place);
    } catch (error) {
      if (!hasCode(error, 'integrity_error')) throw error;
      unreadable.push(place.id);
      return undefined;
    }
  }

  /** As {@link ProjectStore.changes}. */
  changes(after: Position, limit: number, horizon: Position = 0): ChangePage {
    const catalog = this.#catalog;
    // Who begins now has seen nothing that a forgotten deletion could be of.
    const known = after === 0 ? catalog.purgedSeq : horizon;
    if (catalog.purgedSeq > Math.max(after, known)) throw new AppError('position_gone');
    const states = catalog.changes(after).take(limit).toArray();
    return {
      changes: states.map((state) => ({
        ref: { collection: state.collection, id: state.id },
        rev: state.rev.toString('hex'),
        deleted: state.deletedMs !== 0,
        position: state.seq,
      })),
      position: states.at(-1)?.seq ?? Math.max(after, catalog.lastSeq),
      horizon: known,
    };
  }

  /** As {@link ProjectStore.sealedChanges}. */
  async sealedChanges(after: Position, { limit, bytesMax }: SealedPageLimits): Promise<SealedPage> {
    const catalog = this.#catalog;
    const { lastSeq, purgedSeq: forgotten } = catalog;
    const states = catalog.changes(after).take(limit).toArray();
    const changes: SealedChange[] = [];
    let isComplete = states.length < limit;
    let position = after;
    let bytes = 0;
    for (const state of states) {
      if (bytes >= bytesMax) return { changes, position, isComplete: false, forgotten };
      const sealed = state.deletedMs === 0 ? await this.#sealedOf(state) : undefined;
      if (sealed === undefined && state.deletedMs === 0) isComplete = false;
      else changes.push({ state: sealed === undefined ? state : { ...state, size: sealed.length }, sealed });
      bytes += sealed?.length ?? 0;
      position = state.seq;
    }
    return { changes, position: states.length < limit ? lastSeq : position, isComplete, forgotten };
  }

  /**
   * Undefined for one that is not in memory, or whose bytes are not it. One that waits for its file comes
   * into the cache, so that the next read needs no file.
   */
  #openInMemory(ref: DocumentRef, living: LivingDocument): StoredDocument | undefined {
    const { cache, project } = this.#options;
    const { fileName } = living;
    const cached = cache.get(project, fileName);
    const document = cached && this.#open(ref, living, cached);
    if (document !== undefined) return document;
    const pending = this.#writer.pending(fileName);
    const written = pending && this.#open(ref, living, pending);
    if (pending !== undefined && written !== undefined) cache.set(project, fileName, copyOf(pending));
    return written;
  }

  /** Sealed bytes that wait for their file, or that were used lately. */
  #inMemory({ fileName }: LivingDocument): Buffer | undefined {
    const { cache, project } = this.#options;
    return this.#writer.pending(fileName) ?? cache.get(project, fileName);
  }

  async #readFile(ref: DocumentRef, living: LivingDocument): Promise<StoredDocument | undefined> {
    const { disk, directory, cache, project } = this.#options;
    const { fileName } = living;
    const sealed = await readDocumentFile(disk, directory, documentPath(fileName), living.size);
    const document = Buffer.isBuffer(sealed) ? this.#open(ref, living, sealed) : undefined;
    if (!Buffer.isBuffer(sealed) || document === undefined) return undefined;
    // An overwrite during the read must not be followed by the older bytes in the cache.
    if (this.#catalog.living(ref)?.seq === living.seq) cache.set(project, fileName, sealed);
    return document;
  }

  /** The bytes of a document that were found to open; undefined when it has changed since. */
  async #sealedOf(state: DocumentState): Promise<Buffer | undefined> {
    const { disk, directory, onIntegrityError } = this.#options;
    for (;;) {
      const living = this.#catalog.living(state);
      if (living?.seq !== state.seq) return undefined;
      const { fileName } = living;
      const sealed =
        this.#inMemory(living) ??
        (await readDocumentFile(disk, directory, documentPath(fileName), living.size));
      if (Buffer.isBuffer(sealed) && this.#open(state, living, sealed) !== undefined) return sealed;
      const now = this.#catalog.living(state);
      // It was re-sealed while its file was read.
      if (now?.seq === living.seq && now.keyVersion !== living.keyVersion) continue;
      if (now?.seq !== state.seq) return undefined;
      onIntegrityError(fileName);
      throw new AppError('integrity_error');
    }
  }

  /** The document, or undefined when the bytes are not this state of it. */
  #open(ref: DocumentRef, living: LivingDocument, sealed: Buffer): StoredDocument | undefined {
    try {
      const text = this.#options.cipher.openDocument(living.fileName, sealed, living.keyVersion);
      const metadata = readStoredMetadata(text, ref);
      return metadata?._rev === living.rev ? { metadata, text } : undefined;
    } catch (error) {
      if (error instanceof OpenError) return undefined;
      throw error;
    }
  }
}

function listed(
  document: StoredDocument | undefined,
  { createdSeq }: ListedPlace,
): ListedDocument | undefined {
  return document && { ...document, position: createdSeq };
}

/** What waits for its file is a view of a whole part of the log, which a cache must not keep. */
function copyOf(sealed: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(sealed.length);
  sealed.copy(copy);
  return copy;
}
