import { setImmediate } from 'node:timers/promises';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import { AppError } from '@bundoc/shared/errors';
import { LongWork } from '../long-work.ts';
import type { InstanceManager } from '../project/instance-manager.ts';
import { refusalOf, requireAcceptable } from '../storage/collections/definition-schema.ts';
import type { CollectionStore } from '../storage/collections/port.ts';
import type { IndexStatus } from '../storage/indexes/port.ts';
import type { Precondition } from '../storage/port.ts';

/** A collection as it is told of. */
export interface CollectionInfo {
  readonly name: string;
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
  readonly definition: CollectionDefinition | undefined;
  /** How its indexes are; an engine without any has none. */
  readonly indexes: readonly IndexStatus[];
  /** Revision of the definition. */
  readonly rev: string | undefined;
}

/** What a look at documents that are there already has found. */
export interface ExistingDocuments {
  readonly checked: number;
  /** Of those, documents that a write would be refused for now. They stay as they are. */
  readonly failing: number;
  /** Whether all documents were looked at. */
  readonly complete: boolean;
}

/** Documents and bytes that are looked at when a schema changes. */
const CHECKED_MAX = 10_000;
const CHECKED_BYTES_MAX = 67_108_864;
/** Pages of expired documents alone that are passed over for it: each stands for thousands. */
const EMPTY_PAGES_MAX = 2;
const PAGE = { limit: 200, bytesMax: 1_048_576 };

/** Collections and their definitions. Arguments are validated at the edge. */
export class Collections {
  readonly #instances: Pick<InstanceManager, 'acquire'>;

  constructor(instances: Pick<InstanceManager, 'acquire'>) {
    this.#instances = instances;
  }

  /** All collections that hold a document or have a definition, by name. @throws AppError `project_not_found`, and those of the store. */
  async list(project: string): Promise<CollectionInfo[]> {
    using lease = await this.#existing(project);
    return await infosOf(lease.store);
  }

  /** @throws AppError `collection_not_found`, `project_not_found`, and those of the store. */
  async get(project: string, collection: string): Promise<CollectionInfo> {
    using lease = await this.#existing(project);
    return await infoOf(lease.store, collection);
  }

  /**
   * Defines a collection, and looks at some of its documents for how many would be refused now. Makes the project if need be.
   *
   * @throws AppError `invalid_request`, `precondition_failed`, and those of the store.
   */
  async define(
    project: string,
    collection: string,
    definition: CollectionDefinition,
    precondition: Precondition,
  ): Promise<{ created: boolean; info: CollectionInfo; existing: ExistingDocuments }> {
    // Before a project would be made for it.
    requireAcceptable(definition);
    const needsDefinition = precondition.kind === 'present' || precondition.kind === 'revision';
    using lease = needsDefinition
      ? await this.#instances.acquire(project, 'existing')
      : await this.#instances.acquire(project, 'create');
    if (lease === undefined) throw new AppError('precondition_failed');
    const { store } = lease;
    const { created } = await store.define(collection, definition, precondition);
    return {
      created,
      info: await infoOf(store, collection),
      existing: await lookAt(store, collection, definition),
    };
  }

  /** Removes a definition; documents stay. @throws AppError `collection_not_found`, `precondition_failed`, `project_not_found`. */
  async undefine(project: string, collection: string, precondition: Precondition): Promise<void> {
    using lease = await this.#existing(project);
    await lease.store.define(collection, undefined, precondition);
  }

  async #existing(project: string) {
    const lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return lease;
  }
}

async function infosOf(store: CollectionStore): Promise<CollectionInfo[]> {
  const summaries = new Map((await store.collections()).map((summary) => [summary.name, summary]));
  return [...new Set([...summaries.keys(), ...store.defined])]
    .sort()
    .map((name) => ({ documents: 0, bytes: 0, ...summaries.get(name), name, ...definitionOf(store, name) }));
}

async function infoOf(store: CollectionStore, collection: string): Promise<CollectionInfo> {
  const info = (await infosOf(store)).find(({ name }) => name === collection);
  if (info === undefined) throw new AppError('collection_not_found');
  return info;
}

function definitionOf(store: CollectionStore, collection: string) {
  const stored = store.definition(collection);
  const indexes = store.indexes?.status(collection) ?? [];
  return { definition: stored?.definition, rev: stored?.rev, indexes };
}

async function lookAt(
  store: CollectionStore,
  collection: string,
  definition: CollectionDefinition,
): Promise<ExistingDocuments> {
  let checked = 0;
  let failing = 0;
  let bytes = 0;
  let emptyPages = 0;
  if (definition.schema === undefined) return { checked, failing, complete: true };
  const isRefused = refusalOf(definition);
  const work = new LongWork();
  for (let after: number | undefined = 0; after !== undefined; ) {
    if (checked >= CHECKED_MAX || bytes >= CHECKED_BYTES_MAX || emptyPages >= EMPTY_PAGES_MAX)
      return { checked, failing, complete: false };
    const page: Awaited<ReturnType<CollectionStore['list']>> = await store.list({
      collection,
      after,
      ...PAGE,
    });
    if (page.documents.length === 0) emptyPages++;
    bytes += page.documents.reduce((sum, { text }) => sum + text.length, 0);
    for (const document of page.documents) {
      await work.pause();
      if (isRefused(document)) failing++;
      checked++;
    }
    after = page.next;
    await setImmediate();
  }
  return { checked, failing, complete: true };
}
