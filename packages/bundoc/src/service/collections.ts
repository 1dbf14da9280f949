import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { CollectionStore } from '../collections/port.ts';
import { acceptInTurns, checkInTurnsOf } from '../collections/schema-checks.ts';
import { ownContentOf } from '../crypto/stored-text.ts';
import type { IndexStatus } from '../engine/index-port.ts';
import type { CollectionSummary, CommitOptions, DocumentPage, Precondition } from '../engine/port.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import type { Work } from '../work/scheduler.ts';
import type { WorkOptions } from './documents.ts';

/** A collection in a list of them. */
export interface ListedCollection extends CollectionSummary {
  readonly isDefined: boolean;
}

/** A collection as it is shown. */
export interface CollectionInfo extends CollectionSummary {
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

  /**
   * All collections that hold a document or have a definition, by name. @throws AppError `project_not_found`,
   * and those of the store.
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
    const info = await infoOf(store, collection, stored ?? { definition: undefined, rev: undefined });
    if (stored === undefined && info.documents === 0) throw new AppError('collection_not_found');
    return info;
  }

  /**
   * Defines a collection, and looks at some of its documents for how many would be refused now. Makes the
   * project if need be.
   *
   * @throws AppError `invalid_request`, `precondition_failed`, and those of the store.
   */
  async define(
    project: string,
    collection: string,
    definition: CollectionDefinition,
    precondition: Precondition,
    options: WorkOptions,
  ): Promise<{ created: boolean; info: CollectionInfo; existing: ExistingDocuments }> {
    // Before a project would be made for it.
    await acceptInTurns(definition, options.work);
    const needsDefinition = precondition.kind === 'present' || precondition.kind === 'revision';
    using lease = needsDefinition
      ? await this.#instances.acquire(project, 'existing')
      : await this.#instances.acquire(project, 'create');
    if (lease === undefined) throw new AppError('precondition_failed');
    const { store } = lease;
    const { created, rev } = await store.define(collection, definition, precondition, options);
    const stored = store.definition(collection);
    return {
      created,
      // A repeated request that others have overtaken is answered as it was.
      info: await infoOf(
        store,
        collection,
        stored !== undefined && stored.rev === rev ? stored : { definition, rev },
      ),
      existing: await lookAt(store, collection, definition, options.work),
    };
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

async function infoOf(
  store: CollectionStore,
  name: string,
  { definition, rev }: Pick<CollectionInfo, 'definition' | 'rev'>,
): Promise<CollectionInfo> {
  const summary = (await store.collections()).find((one) => one.name === name);
  return {
    ...(summary ?? { name, documents: 0, bytes: 0 }),
    ...{ definition, rev },
    indexes: store.indexes?.status(name) ?? [],
  };
}

/** One that does not open is there all the same, and no reason to keep the others from being listed. */
function isDefined(store: CollectionStore, collection: string): boolean {
  try {
    return store.definition(collection) !== undefined;
  } catch (error) {
    if (hasCode(error, 'integrity_error')) return true;
    throw error;
  }
}

async function lookAt(
  store: CollectionStore,
  collection: string,
  definition: CollectionDefinition,
  work: Work,
): Promise<ExistingDocuments> {
  let checked = 0;
  let failing = 0;
  let bytes = 0;
  let emptyPages = 0;
  if (definition.schema === undefined) return { checked, failing, complete: true };
  try {
    const check = checkInTurnsOf(definition.schema);
    for (let after: number | undefined = 0; after !== undefined; ) {
      if (checked >= CHECKED_MAX || bytes >= CHECKED_BYTES_MAX || emptyPages >= EMPTY_PAGES_MAX)
        return { checked, failing, complete: false };
      const query = { collection, after, ...PAGE, work };
      const page: DocumentPage = await work.outside(() => store.list(query));
      if (page.documents.length === 0) emptyPages++;
      bytes += page.documents.reduce((sum, { text }) => sum + text.length, 0);
      for (const document of page.documents) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        const { text, metadata } = document;
        const content = ownContentOf(text, { collection: metadata._collection, id: metadata._id });
        if ((await check(content, work)).length > 0) failing++;
        checked++;
      }
      after = page.next;
    }
  } catch (error) {
    // The definition is in force already: a look that finds no room, or takes too long, does not refuse it.
    if (!hasCode(error, 'rate_limited', 'overloaded', 'payload_too_large')) throw error;
    return { checked, failing, complete: false };
  }
  return { checked, failing, complete: true };
}
