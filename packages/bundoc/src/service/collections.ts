import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { DroppedDocuments } from '../collections/drop-documents.ts';
import type { CollectionStore } from '../collections/port.ts';
import { acceptInTurns } from '../collections/schema-checks.ts';
import type { IndexStatus } from '../engine/port/index-port.ts';
import type { CollectionSummary, CommitOptions, Precondition } from '../engine/port/port.ts';
import { PreconditionsFailed } from '../engine/port/precondition.ts';
import { shortHash } from '../engine/port/short-hash.ts';
import { HeldLease } from '../projects/held-lease.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import type { Work } from '../work/work.ts';
import type { WorkOptions } from './documents.ts';
import { ExistingDocuments, type ExistingDocumentsOptions } from './existing-documents.ts';
import { openPositionCursor, sealPositionCursor } from './page-cursor.ts';

/** A collection in a list. */
export interface ListedCollection extends CollectionSummary {
  readonly isDefined: boolean;
}

/** A collection as the API shows it. */
export interface CollectionInfo extends CollectionSummary {
  readonly definition: CollectionDefinition | undefined;
  /** The state of its indexes; empty for an engine without indexes. */
  readonly indexes: readonly IndexStatus[];
  /** Revision of the definition. */
  readonly rev: string | undefined;
}

/** The result of checking some of the existing documents. */
export interface ExistingSummary {
  readonly checked: number;
  /** Checked documents that a write would now refuse. They stay unchanged. */
  readonly failing: number;
  /** With a time to live: documents that never expire, because their time is none. */
  readonly invalid_times?: number;
  /** Whether all documents were checked. */
  readonly complete: boolean;
}

export interface SchemaCheckRequest {
  readonly project: string;
  readonly collection: string;
  readonly schema: NonNullable<CollectionDefinition['schema']>;
  /** Maximum number of documents to check. */
  readonly limit: number;
  /** `next` of the previous answer to the same request. */
  readonly cursor: string | undefined;
  readonly work: Work;
}

export interface SchemaCheckAnswer
  extends Pick<ExistingDocuments, 'checked' | 'failing' | 'failures' | 'unreadable'> {
  readonly next: string | undefined;
}

/** Documents checked when a schema changes. */
const CHECKED_MAX = 10_000;

/** Collections and their definitions. Arguments are validated at the edge. */
export class Collections {
  readonly #instances: Pick<InstanceManager, 'acquire'>;

  constructor(instances: Pick<InstanceManager, 'acquire'>) {
    this.#instances = instances;
  }

  /**
   * All collections with a document or a definition, by name. @throws AppError `project_not_found`, and those
   * of the store.
   */
  async list(project: string): Promise<ListedCollection[]> {
    using lease = await this.#existing(project);
    const { store } = lease;
    const summaries = new Map((await store.collections()).map((summary) => [summary.name, summary]));
    return [...new Set([...summaries.keys(), ...store.defined])].sort().map((name) => ({
      ...(summaries.get(name) ?? { name, documents: 0, bytes: 0 }),
      isDefined: isDefined(store, name),
    }));
  }

  /** @throws AppError `collection_not_found`, `project_not_found`, and those of the store. */
  async get(project: string, collection: string): Promise<CollectionInfo> {
    using lease = await this.#existing(project);
    const { store } = lease;
    const stored = store.definition(collection);
    const info = await readInfo(store, collection, stored ?? { definition: undefined, rev: undefined });
    if (stored === undefined && info.documents === 0) throw new AppError('collection_not_found');
    return info;
  }

  /**
   * Defines a collection. Counts how many of its first documents the schema would now refuse, and how many
   * never expire by mistake. Creates the project if necessary.
   *
   * @throws AppError `invalid_request`, `precondition_failed`, and those of the store.
   */
  async define(
    project: string,
    collection: string,
    definition: CollectionDefinition,
    precondition: Precondition,
    options: WorkOptions,
  ): Promise<{ created: boolean; info: CollectionInfo; existing: ExistingSummary }> {
    // Before a project would be created for it.
    const { schema } = definition;
    const check = schema === undefined ? undefined : await acceptInTurns(schema, options.work);
    const needsDefinition = precondition.kind === 'present' || precondition.kind === 'revision';
    using lease = needsDefinition
      ? await this.#instances.acquire(project, 'existing')
      : await this.#instances.acquire(project, 'create');
    if (lease === undefined) throw new PreconditionsFailed([{ index: 0, rev: undefined }]);
    const { store } = lease;
    const { created, rev } = await store.define(collection, definition, precondition, options);
    const stored = store.definition(collection);
    return {
      created,
      // A repetition returns the first answer, even if the definition has changed since.
      info: await readInfo(
        store,
        collection,
        stored !== undefined && stored.rev === rev ? stored : { definition, rev },
      ),
      existing: await summarizeExisting(store, collection, { check, ttl: definition.ttl }, options.work),
    };
  }

  /**
   * Counts the existing documents that a schema would refuse. Nothing is changed.
   *
   * @throws AppError `invalid_request` for an unacceptable schema; `invalid_cursor`; `project_not_found`, and
   *   those of the store.
   */
  async checkSchema(request: SchemaCheckRequest): Promise<SchemaCheckAnswer> {
    const { project, collection, schema, limit, cursor, work } = request;
    const check = await acceptInTurns(schema, work);
    using held = new HeldLease(() => this.#instances.acquire(project, 'existing'));
    const context = ['schema-check', collection, shortHash(JSON.stringify(schema))];
    const { cursors } = await held.get();
    const after = cursor === undefined ? 0 : openPositionCursor(cursors, context, cursor);
    const existing = new ExistingDocuments({
      collection,
      check,
      work,
      after,
      documentsMax: limit,
      // Acquired again for each page, so that no key is used after its end.
      list: async (query) => (await held.get()).store.list(query),
    });
    await existing.run();
    const { checked, failing, failures, unreadable, next } = existing;
    return {
      checked,
      failing,
      failures,
      unreadable,
      next: next === undefined ? undefined : sealPositionCursor((await held.get()).cursors, context, next),
    };
  }

  /**
   * Removes some documents of a collection, and its definition once there are none. May be repeated. What is
   * written meanwhile is removed as well, unless it comes after the last call.
   *
   * @throws AppError `project_not_found`, and those of the store.
   */
  async drop(project: string, collection: string, work: Work): Promise<DroppedDocuments> {
    using lease = await this.#existing(project);
    const { store } = lease;
    const dropped = await store.dropDocuments(collection, work);
    if (dropped.more || dropped.left > 0) return dropped;
    try {
      await store.define(collection, undefined, { kind: 'none' });
    } catch (error) {
      if (!hasCode(error, 'collection_not_found')) throw error;
    }
    return dropped;
  }

  /**
   * Removes a definition; documents stay. @throws AppError `collection_not_found`, `precondition_failed`,
   * `project_not_found`.
   */
  async undefine(
    project: string,
    collection: string,
    precondition: Precondition,
    options: CommitOptions = {},
  ): Promise<void> {
    using lease = await this.#existing(project);
    await lease.store.define(collection, undefined, precondition, options);
  }

  async #existing(project: string) {
    const lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return lease;
  }
}

async function readInfo(
  store: CollectionStore,
  name: string,
  { definition, rev }: Pick<CollectionInfo, 'definition' | 'rev'>,
): Promise<CollectionInfo> {
  const summary = (await store.collections()).find((one) => one.name === name);
  return {
    ...(summary ?? { name, documents: 0, bytes: 0 }),
    definition,
    rev,
    indexes: store.indexes?.status(name) ?? [],
  };
}

/** An undecryptable definition exists as well, and must not break the list. */
function isDefined(store: CollectionStore, collection: string): boolean {
  try {
    return store.definition(collection) !== undefined;
  } catch (error) {
    if (hasCode(error, 'integrity_error')) return true;
    throw error;
  }
}

async function summarizeExisting(
  store: CollectionStore,
  collection: string,
  { check, ttl }: Pick<ExistingDocumentsOptions, 'check' | 'ttl'>,
  work: Work,
): Promise<ExistingSummary> {
  if (check === undefined && ttl === undefined) return { checked: 0, failing: 0, complete: true };
  const existing = new ExistingDocuments({
    collection,
    check,
    ttl,
    work,
    after: 0,
    documentsMax: CHECKED_MAX,
    list: async (query) => store.list(query),
  });
  try {
    await existing.run();
  } catch (error) {
    // The definition is already in effect, so a check without capacity or time does not refuse it.
    if (!hasCode(error, 'rate_limited', 'overloaded', 'payload_too_large')) throw error;
  }
  const { checked, failing, invalidTimes, next } = existing;
  const times = ttl === undefined ? {} : { invalid_times: invalidTimes };
  return { checked, failing, ...times, complete: next === undefined };
}
