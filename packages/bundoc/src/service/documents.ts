import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import type { DocumentBody, DocumentRef } from '../crypto/stored-text.ts';
import { requireSame, withRevision } from '../documents/body-metadata.ts';
import { documentIdOfBody, newDocumentId } from '../documents/document-id.ts';
import type { Fields } from '../documents/fields.ts';
import { readBodyInTurns, readPatchInTurns } from '../documents/large-content.ts';
import type { PatchKind } from '../documents/patch/read-patch.ts';
import { projectInTurns } from '../documents/project-text.ts';
import type {
  CommitOptions,
  DocumentPage,
  Precondition,
  ProjectStore,
  StoredDocument,
  Write,
  WriteResult,
} from '../engine/port.ts';
import { shortHash } from '../engine/short-hash.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import type { Work } from '../work/work.ts';
import { openPositionCursor, sealPositionCursor } from './page-cursor.ts';
import { answeredBefore, PATCH_TRIES_MAX, patchedWrite } from './patching.ts';

export interface DocumentLimits {
  /**
   * Bytes of a document without its metadata members. Requests are bounded at the edge; this is for what a
   * patch makes.
   */
  readonly documentBytesMax: number;
}

export interface ListRequest {
  readonly collection: string;
  readonly limit: number;
  /** Bytes of documents after which the page ends, though one is always in it. */
  readonly bytesMax: number;
  /** `next` of the page before. */
  readonly cursor: string | undefined;
  /** The members that are wanted; all by default. */
  readonly fields: Fields | undefined;
  /** Whether the documents of the collection are counted. */
  readonly total: boolean;
  /** What the request does is part of it. */
  readonly work: Work;
  /** Has the page read when it is its turn. */
  readonly inTurn: (read: () => Promise<DocumentPage>) => Promise<DocumentPage>;
}

export interface ListPage {
  /** Documents as they are sent, in the order of their creation. */
  readonly texts: readonly Buffer[];
  readonly unreadable: readonly string[];
  readonly next: string | undefined;
  readonly total: number | undefined;
}

/** Of a write, with the work that it is part of. */
export type WorkOptions = CommitOptions & { readonly work: Work };

/**
 * What reads and writes of documents do, whatever protocol asks for them. Arguments are validated at the
 * edge.
 */
export class Documents {
  readonly #instances: Pick<InstanceManager, 'acquire' | 'peekStore' | 'leaseIfOpen'>;
  readonly #limits: DocumentLimits;
  /**
   * Patches of one document wait for each other, since of those that are applied to the same revision one
   * alone can take effect.
   */
  readonly #patching = new KeyedMutex();

  constructor(
    instances: Pick<InstanceManager, 'acquire' | 'peekStore' | 'leaseIfOpen'>,
    limits: DocumentLimits,
  ) {
    this.#instances = instances;
    this.#limits = limits;
  }

  /**
   * Makes a document, under the body's `_id` or else a new id that sorts by time (UUIDv7).
   *
   * @throws AppError `document_exists`, and those of {@link readBodyInTurns} and the store.
   */
  async create(
    project: string,
    collection: string,
    bytes: Buffer,
    options: WorkOptions,
  ): Promise<DocumentMetadata> {
    const read = readBodyInTurns(bytes, options.work);
    const body = read instanceof Promise ? await read : read;
    requireSame('_collection', body.collection, collection);
    const id = body.id === undefined ? newDocumentId() : documentIdOfBody(body.id);
    try {
      const { metadata } = await this.#put(project, { collection, id }, body, { kind: 'absent' }, options);
      return metadata;
    } catch (error) {
      if (hasCode(error, 'precondition_failed')) throw new AppError('document_exists', { cause: error });
      throw error;
    }
  }

  /**
   * Makes or replaces a document.
   *
   * A `_rev` in the body works as `If-Match` does, unless the request can only create.
   *
   * @throws AppError `precondition_failed`, and those of {@link readBodyInTurns} and the store.
   */
  async replace(
    project: string,
    ref: DocumentRef,
    bytes: Buffer,
    asked: Precondition,
    options: WorkOptions,
  ): Promise<{ created: boolean; metadata: DocumentMetadata }> {
    const read = readBodyInTurns(bytes, options.work);
    const body = read instanceof Promise ? await read : read;
    requireSame('_id', body.id, ref.id);
    requireSame('_collection', body.collection, ref.collection);
    return this.#put(project, ref, body, withRevision(asked, body.rev), options);
  }

  /**
   * Synchronous for a document that is in memory, of a project that is open.
   *
   * @throws AppError `document_not_found`, `project_not_found`, and those of the store; by rejection or at
   * once.
   */
  read(project: string, ref: DocumentRef): StoredDocument | Promise<StoredDocument> {
    const store = this.#instances.peekStore(project);
    if (store === undefined) return this.#read(project, ref);
    const found = store.get(ref);
    return found instanceof Promise ? this.#readHeld(project, found) : present(found);
  }

  async #read(project: string, ref: DocumentRef): Promise<StoredDocument> {
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return present(await lease.store.get(ref));
  }

  /** A read that does not end in its turn of the event loop holds its project. */
  async #readHeld(project: string, found: Promise<StoredDocument | undefined>): Promise<StoredDocument> {
    using _lease = this.#instances.leaseIfOpen(project);
    return present(await found);
  }

  /**
   * @throws AppError `document_not_found`, `project_not_found`, `precondition_failed`, and those of the
   * store.
   */
  async remove(
    project: string,
    ref: DocumentRef,
    precondition: Precondition,
    options: CommitOptions = {},
  ): Promise<void> {
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    await lease.store.commit([{ kind: 'delete', ref, precondition }], options);
  }

  /**
   * Changes a document by a patch. Without a precondition on the revision it is applied to the latest one,
   * again if need be.
   *
   * @throws AppError `invalid_patch`, `patch_test_failed`, `patch_inapplicable`, `payload_too_large`,
   * `document_not_found`, `project_not_found`, `precondition_failed`, `overloaded` when the document changes
   * all the time, and those of the store.
   */
  async patch(
    project: string,
    ref: DocumentRef,
    sent: { readonly kind: PatchKind; readonly bytes: Buffer },
    asked: Precondition,
    options: WorkOptions,
  ): Promise<DocumentMetadata> {
    const { documentBytesMax } = this.#limits;
    const { work } = options;
    const patch = await readPatchInTurns(sent.kind, sent.bytes, documentBytesMax, work);
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    const { store } = lease;
    return await this.#patching.run(`${project}\0${ref.collection}\0${ref.id}`, async () => {
      for (let tries = 0; tries < PATCH_TRIES_MAX; tries++) {
        const write = await patchedWrite(store, ref, patch, asked, documentBytesMax, work).catch(
          async (error: unknown) => ({ results: await answeredBefore(store, ref, options, error) }),
        );
        if ('results' in write) return metadataOf(write.results);
        try {
          return metadataOf(await store.commit([write], options));
        } catch (error) {
          if (!hasCode(error, 'precondition_failed')) throw error;
        }
      }
      throw new AppError('overloaded', { detail: 'the document changes too often' });
    });
  }

  /**
   * A page of a collection, in the order of creation.
   *
   * @throws AppError `invalid_cursor`, `project_not_found`, and those of the store.
   */
  async list(project: string, request: ListRequest): Promise<ListPage> {
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    const { store, cursors } = lease;
    const { collection, limit, bytesMax, cursor, fields, work, inTurn } = request;
    const context = ['list', collection, shortHash(...(fields?.canonical ?? []))];
    const after = cursor === undefined ? 0 : openPositionCursor(cursors, context, cursor);
    const page = await inTurn(() => store.list({ collection, after, limit, bytesMax, work }));
    return {
      texts:
        fields === undefined
          ? page.documents.map(({ text }) => text)
          : await projectInTurns(page.documents, fields, work),
      unreadable: page.unreadable,
      next: page.next === undefined ? undefined : sealPositionCursor(cursors, context, page.next),
      total: request.total ? await countOf(store, collection) : undefined,
    };
  }

  async #put(
    project: string,
    ref: DocumentRef,
    body: DocumentBody,
    precondition: Precondition,
    options: CommitOptions,
  ): Promise<{ created: boolean; metadata: DocumentMetadata }> {
    const write: Write = { kind: 'put', ref, content: body.content, precondition };
    const { created, metadata } = await this.#commitCreating(project, write, options);
    if (metadata === undefined) throw new Error('a put has no metadata');
    return { created, metadata };
  }

  /** Makes the project if need be, but never for a write that cannot succeed in an empty one. */
  async #commitCreating(project: string, write: Write, options: CommitOptions): Promise<WriteResult> {
    const needsDocument = write.precondition.kind === 'present' || write.precondition.kind === 'revision';
    using lease = needsDocument
      ? await this.#instances.acquire(project, 'existing')
      : await this.#instances.acquire(project, 'create');
    if (lease === undefined) throw new AppError('precondition_failed');
    const [result] = await lease.store.commit([write], options);
    if (result === undefined) throw new Error('a commit gave no result');
    return result;
  }
}

function metadataOf(results: readonly WriteResult[]): DocumentMetadata {
  const metadata = results[0]?.metadata;
  if (metadata === undefined) throw new Error('a put has no metadata');
  return metadata;
}

async function countOf(store: ProjectStore, collection: string): Promise<number> {
  return (await store.collections()).find(({ name }) => name === collection)?.documents ?? 0;
}

/** @throws AppError `document_not_found`. */
function present(document: StoredDocument | undefined): StoredDocument {
  if (document === undefined) throw new AppError('document_not_found');
  return document;
}
