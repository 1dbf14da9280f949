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
  Position,
  Precondition,
  StoredDocument,
  Write,
  WriteResult,
} from '../engine/port/port.ts';
import { PreconditionsFailed } from '../engine/port/precondition.ts';
import { shortHash } from '../engine/port/short-hash.ts';
import { ofOneState, type ReadPlace, shownPosition } from '../engine/port/snapshot-port.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import type { Work } from '../work/work.ts';
import { openPositionCursor, sealPositionCursor } from './page-cursor.ts';
import { answeredBefore, PATCH_TRIES_MAX, patchedWrite } from './patching.ts';

export interface DocumentLimits {
  /**
   * Maximum bytes of a document without its metadata members. Requests are limited at the edge; this limits
   * the result of a patch.
   */
  readonly documentBytesMax: number;
}

export interface ListRequest {
  readonly collection: string;
  readonly limit: number;
  /** Bytes of documents that end the page, which always has at least one. */
  readonly bytesMax: number;
  /** `next` of the previous page. */
  readonly cursor: string | undefined;
  /** The members to return; all by default. */
  readonly fields: Fields | undefined;
  /** Whether to count the documents of the collection. */
  readonly total: boolean;
  /** The state to show, which an earlier page had; the present one by default. */
  readonly asOf?: Position | undefined;
  /** The work of the request. */
  readonly work: Work;
  /** Reads the page when it has a place. */
  readonly inTurn: <P extends DocumentPage>(read: (place: ReadPlace) => Promise<P>) => Promise<P>;
}

export interface ListPage {
  /** Documents as sent, in creation order. */
  readonly texts: readonly Buffer[];
  readonly unreadable: readonly string[];
  readonly next: string | undefined;
  readonly total: number | undefined;
  /** The position of the last commit that the page shows. */
  readonly asOf: Position;
}

/** The options of a write, with its work. */
export type WorkOptions = CommitOptions & { readonly work: Work };

/** Reads and writes of documents, independent of the protocol. Arguments are validated at the edge. */
export class Documents {
  readonly #instances: Pick<InstanceManager, 'acquire' | 'peekStore' | 'leaseIfOpen'>;
  readonly #limits: DocumentLimits;
  /**
   * Patches of one document run one after another, because only one of those based on the same revision can
   * succeed.
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
   * Creates a document, under the body's `_id` or a new id that sorts by time (UUIDv7).
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
   * Creates or replaces a document.
   *
   * A `_rev` in the body works like `If-Match`, unless the request can only create.
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
   * Synchronous for a document in memory, in an open project.
   *
   * @throws AppError `document_not_found`, `project_not_found`, and those of the store; synchronously or by
   *   rejection.
   */
  read(project: string, ref: DocumentRef): StoredDocument | Promise<StoredDocument> {
    const store = this.#instances.peekStore(project);
    if (store === undefined) return this.#read(project, ref);
    const found = store.get(ref);
    return found instanceof Promise ? this.#readHeld(project, found) : requireDocument(found);
  }

  async #read(project: string, ref: DocumentRef): Promise<StoredDocument> {
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return requireDocument(await lease.store.get(ref));
  }

  /** An asynchronous read holds its project. */
  async #readHeld(project: string, found: Promise<StoredDocument | undefined>): Promise<StoredDocument> {
    using _lease = this.#instances.leaseIfOpen(project);
    return requireDocument(await found);
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
   * Patches a document. Without a precondition on the revision, the patch applies to the latest one, with
   * retries.
   *
   * @throws AppError `invalid_patch`, `patch_test_failed`, `patch_inapplicable`, `payload_too_large`,
   *   `document_not_found`, `project_not_found`, `precondition_failed`, `overloaded` when the document keeps
   *   changing, and those of the store.
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
   * A page of a collection as of one commit, in creation order.
   *
   * @throws AppError `invalid_cursor`, `project_not_found`, `snapshot_too_old`, and those of the store.
   */
  async list(project: string, request: ListRequest): Promise<ListPage> {
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    const { store, cursors } = lease;
    const { collection, limit, bytesMax, cursor, fields, work, asOf, inTurn } = request;
    const context = ['list', collection, shortHash(...(fields?.canonical ?? []))];
    const after = cursor === undefined ? 0 : openPositionCursor(cursors, context, cursor);
    const page = await inTurn(async (place) => {
      using snapshot = await store.snapshot(collection, { asOf, place });
      const listed = await ofOneState(() => snapshot.list({ after, limit, bytesMax, work }));
      if (listed.next !== undefined) snapshot.retain?.();
      const total = request.total ? await snapshot.total() : undefined;
      return { ...listed, total, asOf: shownPosition(snapshot) };
    });
    return {
      texts:
        fields === undefined
          ? page.documents.map(({ text }) => text)
          : await projectInTurns(page.documents, fields, work),
      unreadable: page.unreadable,
      next: page.next === undefined ? undefined : sealPositionCursor(cursors, context, page.next),
      total: page.total,
      asOf: page.asOf,
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

  /** Creates the project if necessary, but never for a write that cannot succeed in an empty one. */
  async #commitCreating(project: string, write: Write, options: CommitOptions): Promise<WriteResult> {
    const needsDocument = write.precondition.kind === 'present' || write.precondition.kind === 'revision';
    using lease = needsDocument
      ? await this.#instances.acquire(project, 'existing')
      : await this.#instances.acquire(project, 'create');
    if (lease === undefined) throw new PreconditionsFailed([{ index: 0, rev: undefined }]);
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

/** @throws AppError `document_not_found`. */
function requireDocument(document: StoredDocument | undefined): StoredDocument {
  if (document === undefined) throw new AppError('document_not_found');
  return document;
}
