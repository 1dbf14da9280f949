import { setImmediate } from 'node:timers/promises';
import type { Clock } from '@bundoc/shared/clock';
import type { CollectionDefinition, Ttl } from '@bundoc/shared/contract/collections';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { readJson } from '@bundoc/shared/json/read';
import { type DocumentContent, type DocumentRef, ownContentOf } from '../../cipher/stored-text.ts';
import { Turns } from '../../turns.ts';
import type { EngineIndexes, IndexSpec } from '../indexes/port.ts';
import type {
  Change,
  ChangePage,
  CollectionSummary,
  CommitOptions,
  DocumentPage,
  ListedDocument,
  ListQuery,
  MovableStore,
  Position,
  Precondition,
  ProjectStore,
  SealedPage,
  SealedPageLimits,
  StoredDocument,
  Write,
  WriteResult,
} from '../port.ts';
import {
  contentOfDefinition,
  DEFINITIONS,
  DEFINITIONS_MAX,
  definitionRef,
  readDefinition,
  type StoredDefinition,
} from './definition.ts';
import { isExpired } from './expiry.ts';
import { compileSchema, requireFewAlternatives, type SchemaCheck } from './json-schema.ts';
import type { CollectionStore } from './port.ts';

/** A definition as it is obeyed. */
interface Known extends StoredDefinition {
  /** Compiled when it is first asked for: a project may have a thousand schemas, and a large one takes a good part of a second. */
  readonly check: () => SchemaCheck | undefined;
}

/** Definitions that are read at a time. */
const DEFINITION_PAGE = { limit: 100, bytesMax: 8_388_608 };

/** Documents of a collection that are looked at for having expired, each time; more while some have. */
const SWEPT_PAGE = { limit: 200, bytesMax: 2_097_152 };
const SWEPT_MAX = 5_000;

/** How far a look for expired documents has come: up to here in this collection, and through all before it. */
export interface SweepPlace {
  readonly collection: string;
  readonly after: Position;
}

/** Expired documents, bytes of them, and pages of nothing else, that one list passes over before it ends with an empty page. */
export const PASSED_MAX = 5_000;
const PASSED_BYTES_MAX = 33_554_432;
const PASSED_PAGES_MAX = 100;

/**
 * Opens what a project's collections are defined to be. The store belongs to the result from then on.
 *
 * @param beforeExpiring called before a definition gives documents a time to live, which is not made when it rejects.
 */
export async function openDefinedStore(
  store: ProjectStore,
  clock: Clock,
  beforeExpiring: () => Promise<void> = async () => undefined,
): Promise<DefinedStore> {
  const defined = new DefinedStore(store, clock, beforeExpiring);
  await defined.load();
  return defined;
}

/**
 * A store whose collections may have definitions: documents of writes meet their schema, expired documents are absent, and definitions
 * themselves, which are documents of the store, are seen as such by nobody.
 *
 * Works on any store; there is one for each, so that what it knows of definitions is what they are. A collection without a definition costs one look
 * into a map.
 */
export class DefinedStore implements CollectionStore {
  readonly #store: ProjectStore;
  readonly #clock: Clock;
  readonly #beforeExpiring: () => Promise<void>;
  readonly #known = new Map<string, Known>();
  /** Collections whose definition does not open: nobody knows what holds for them. */
  readonly #damaged = new Set<string>();
  /** Definitions that do not open, and neither does whose they are, by the names of their documents. */
  #unnamed: ReadonlySet<string> = new Set();
  readonly #defining = new Turns();
  /** Where the look for expired documents goes on, by collection; absent at its beginning. */
  readonly #sweptTo = new Map<string, Position>();

  constructor(store: ProjectStore, clock: Clock, beforeExpiring: () => Promise<void>) {
    this.#store = store;
    this.#clock = clock;
    this.#beforeExpiring = beforeExpiring;
  }

  /** Reads all definitions, and makes their indexes hold: before anything else, and again when others may have changed them. */
  load(): Promise<void> {
    return this.#defining.run(async () => {
      const names = new Set<string>();
      const unnamed = new Set<string>();
      for (let after: Position | undefined = 0; after !== undefined; ) {
        const page: DocumentPage = await this.#store.list({
          collection: DEFINITIONS,
          after,
          ...DEFINITION_PAGE,
        });
        for (const id of page.unreadable) {
          this.#damaged.add(id);
          names.add(id);
        }
        for (const name of page.unnamed ?? []) unnamed.add(name);
        for (const document of page.documents) {
          this.#loadOne(document);
          names.add(document.metadata._id);
        }
        after = page.next;
      }
      this.#unnamed = unnamed;
      for (const name of [...this.#known.keys(), ...this.#damaged])
        if (!names.has(name) && !this.#isUnnamed(name)) this.#forget(name);
      await this.indexes?.keep?.();
    });
  }

  get indexes(): EngineIndexes | undefined {
    return this.#store.indexes;
  }

  get isShared(): boolean {
    return this.#store.isShared === true;
  }

  get failed(): boolean {
    return this.#store.failed;
  }

  get toReseal(): number {
    return this.#store.toReseal;
  }

  get defined(): readonly string[] {
    return [...new Set([...this.#known.keys(), ...this.#damaged])];
  }

  /** Whether a collection is defined whose documents expire. */
  get mayExpire(): boolean {
    return this.#known.values().some(({ definition }) => definition.ttl !== undefined);
  }

  definition(collection: string): StoredDefinition | undefined {
    return this.#definition(collection);
  }

  define(
    collection: string,
    definition: CollectionDefinition | undefined,
    precondition: Precondition,
    options: CommitOptions = {},
  ): Promise<{ created: boolean; rev: string | undefined }> {
    // One after another, so that what is known last is what was committed last.
    return this.#defining.run(() => this.#define(collection, definition, precondition, options));
  }

  getAtHand(ref: DocumentRef): StoredDocument | undefined {
    const document = this.#store.getAtHand?.(ref);
    const ttl = this.#definition(ref.collection)?.definition.ttl;
    return document && this.#isAlive(ttl, document) ? document : undefined;
  }

  async get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    const ttl = this.#definition(ref.collection)?.definition.ttl;
    const document = await this.#store.get(ref);
    return document && this.#isAlive(ttl, document) ? document : undefined;
  }

  async commit(writes: readonly Write[], options: CommitOptions = {}): Promise<readonly WriteResult[]> {
    if (this.#known.size + this.#damaged.size + this.#unnamed.size > 0) {
      for (const write of writes) this.#requireSchema(write);
      await this.#removeExpired(writes);
    }
    return this.#store.commit(writes, options);
  }

  async list(query: ListQuery): Promise<DocumentPage> {
    const ttl = this.#definition(query.collection)?.definition.ttl;
    if (ttl === undefined) return this.#store.list(query);
    const passed = { documents: 0, bytes: 0 };
    for (let after = query.after, pages = 1; ; pages++) {
      const page = await this.#store.list({ ...query, after });
      const documents: ListedDocument[] = [];
      for (const document of page.documents) {
        if (this.#isAlive(ttl, document)) documents.push(document);
        else {
          passed.documents++;
          passed.bytes += document.text.length;
        }
      }
      // So many that have expired are not worth one request: whoever asks goes on, if they still want to.
      const isEnough =
        passed.documents >= PASSED_MAX || passed.bytes >= PASSED_BYTES_MAX || pages >= PASSED_PAGES_MAX;
      if (documents.length > 0 || page.unreadable.length > 0 || page.next === undefined || isEnough)
        return { ...page, documents, passed };
      after = page.next;
      await setImmediate();
    }
  }

  async changes(after: Position, limit: number, horizon?: Position): Promise<ChangePage> {
    const changes: Change[] = [];
    for (let from = after, known = horizon; ; ) {
      const wanted = limit - changes.length;
      const page: ChangePage = await this.#store.changes(from, wanted, known);
      for (const change of page.changes) if (change.ref.collection !== DEFINITIONS) changes.push(change);
      if (page.changes.length < wanted || changes.length === limit) return { ...page, changes };
      from = page.position;
      known = page.horizon;
    }
  }

  async collections(): Promise<readonly CollectionSummary[]> {
    return (await this.#store.collections()).filter(({ name }) => name !== DEFINITIONS);
  }

  position(): Promise<Position> {
    return this.#store.position();
  }

  waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    return this.#store.waitForChange(after, signal);
  }

  get movable(): MovableStore | undefined {
    return this.#store.movable;
  }

  /** Definitions among the others. */
  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage> {
    return this.#store.sealedChanges(after, limits);
  }

  /**
   * Removes documents that have expired, looking at some each time and going on from there the next.
   *
   * @returns how many were removed.
   */
  async removeExpired(): Promise<number> {
    let removed = 0;
    let looked = 0;
    for (const [collection, { definition }] of this.#known) {
      const { ttl } = definition;
      if (ttl === undefined) continue;
      let found = 0;
      do {
        const swept = await this.#sweepPage(collection, ttl, this.#sweptTo.get(collection));
        found = swept.removed;
        removed += found;
        looked += swept.looked;
        if (swept.next === undefined) this.#sweptTo.delete(collection);
        else this.#sweptTo.set(collection, swept.next);
        // Where many have expired, more have.
      } while (found > 0 && this.#sweptTo.has(collection) && looked < SWEPT_MAX);
    }
    return removed;
  }

  /**
   * Removes documents that have expired, from the place that an earlier call has come to, collection by collection.
   *
   * @param pagesMax pages of documents that are looked at.
   * @returns how many were removed, and where to go on; no place when it has come to the end.
   */
  async sweep(
    from: SweepPlace | undefined,
    pagesMax: number,
    signal: AbortSignal,
  ): Promise<{ removed: number; next: SweepPlace | undefined }> {
    let removed = 0;
    let pages = 0;
    for (const collection of this.defined.toSorted()) {
      const ttl = this.#known.get(collection)?.definition.ttl;
      if (ttl === undefined || (from !== undefined && collection < from.collection)) continue;
      let after = from?.collection === collection ? from.after : 0;
      for (let next: Position | undefined = after; next !== undefined; ) {
        after = next;
        if (pages++ >= pagesMax || signal.aborted) return { removed, next: { collection, after } };
        const swept = await this.#sweepPage(collection, ttl, after);
        removed += swept.removed;
        next = swept.next;
      }
    }
    return { removed, next: undefined };
  }

  reseal(limit: number): Promise<number> {
    return this.#store.reseal(limit);
  }

  checkpoint(): Promise<void> {
    return this.#store.checkpoint();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#store[Symbol.asyncDispose]();
  }

  /** Looks at a page of a collection, and removes what has expired of it. */
  async #sweepPage(collection: string, ttl: Ttl, after: Position = 0) {
    const page = await this.#store.list({ collection, after, ...SWEPT_PAGE });
    const removed = await this.#removeAll(page.documents.filter((document) => !this.#isAlive(ttl, document)));
    await setImmediate();
    return { removed, looked: page.documents.length + page.unreadable.length, next: page.next };
  }

  #definition(collection: string): Known | undefined {
    const isDamaged = this.#damaged.size > 0 && this.#damaged.has(collection);
    if (isDamaged || this.#isUnnamed(collection)) throw new AppError('integrity_error');
    return this.#known.get(collection);
  }

  /** Whether the definition of this collection is among those of which it cannot be seen whose they are. */
  #isUnnamed(collection: string): boolean {
    if (this.#unnamed.size === 0) return false;
    const name = this.#store.nameOf?.(definitionRef(collection));
    return name !== undefined && this.#unnamed.has(name);
  }

  /** What its name tells is over once a commit has replaced or removed it. */
  #isNamedAgain(collection: string): void {
    const name = this.#store.nameOf?.(definitionRef(collection));
    this.#unnamed = new Set([...this.#unnamed].filter((one) => one !== name));
  }

  #loadOne(document: StoredDocument): void {
    const { _id: name, _rev: rev } = document.metadata;
    if (this.#known.get(name)?.rev === rev) return;
    try {
      this.#learn(name, knownOf(readDefinition(document)), true);
    } catch {
      this.#damaged.add(name);
    }
  }

  #learn(collection: string, known: Known, wasDefined = false): void {
    this.#known.set(collection, known);
    const specs = known.definition.indexes.map(specOf);
    this.indexes?.define(collection, specs, { rev: known.rev, wasDefined });
    this.#damaged.delete(collection);
  }

  /**
   * Takes up what a collection is defined to be after a commit: what was committed, unless that was a repetition, or others were faster.
   *
   * @param committed undefined for a removal.
   */
  async #relearn(collection: string, committed?: Known): Promise<void> {
    const document = await this.#store.get(definitionRef(collection));
    if (this.#isUnnamed(collection)) this.#isNamedAgain(collection);
    if (document === undefined) this.#forget(collection);
    else if (document.metadata._rev === committed?.rev) this.#learn(collection, committed);
    else this.#loadOne(document);
  }

  #forget(collection: string): void {
    this.indexes?.define(collection, [], { rev: undefined, wasDefined: false });
    this.#known.delete(collection);
    this.#damaged.delete(collection);
  }

  async #define(
    collection: string,
    definition: CollectionDefinition | undefined,
    precondition: Precondition,
    options: CommitOptions,
  ): Promise<{ created: boolean; rev: string | undefined }> {
    const ref = definitionRef(collection);
    if (definition === undefined) {
      await this.#store.commit([{ kind: 'delete', ref, precondition }], options).catch((error: unknown) => {
        throw hasCode(error, 'document_not_found') ? new AppError('collection_not_found') : error;
      });
      await this.#relearn(collection);
      await this.indexes?.keep?.();
      return { created: false, rev: undefined };
    }
    if (!this.#known.has(collection) && this.#known.size >= DEFINITIONS_MAX)
      throw new AppError('invalid_request', {
        detail: `a project has at most ${DEFINITIONS_MAX} definitions`,
      });
    const check = acceptedCheckOf(definition);
    const kept = this.indexes?.areBlind === true ? withTokens(definition) : definition;
    const content = contentOfDefinition(kept);
    if (definition.ttl !== undefined) await this.#beforeExpiring();
    const [result] = await this.#store.commit([{ kind: 'put', ref, content, precondition }], options);
    if (result?.metadata === undefined) throw new Error('a put has no metadata');
    const rev = result.metadata._rev;
    await this.#relearn(collection, { definition: kept, rev, check: () => check });
    await this.indexes?.keep?.();
    return { created: result.created, rev };
  }

  /** @throws AppError `integrity_error` for a schema that was accepted once and is not any more: nobody knows what holds then. */
  #checkOf(collection: string): SchemaCheck | undefined {
    try {
      return this.#definition(collection)?.check();
    } catch (error) {
      this.#damaged.add(collection);
      throw new AppError('integrity_error', { cause: error });
    }
  }

  /** @throws AppError `schema_violation`. */
  #requireSchema(write: Write): void {
    if (write.kind === 'delete') return;
    const check = this.#checkOf(write.ref.collection);
    if (check === undefined) return;
    const errors = check(parsed(write.content));
    if (errors.length > 0) throw new AppError('schema_violation', { errors });
  }

  /** An expired document is absent for whoever writes to it, and must be so for the store. */
  async #removeExpired(writes: readonly Write[]): Promise<void> {
    for (const { ref } of writes) {
      const ttl = this.#definition(ref.collection)?.definition.ttl;
      if (ttl === undefined) continue;
      const document = await this.#store.get(ref).catch(ignoreDamage);
      if (document !== undefined && !this.#isAlive(ttl, document)) await this.#remove(ref, document);
    }
  }

  /** Removes these very states of documents, in one commit when nobody was faster. @returns how many. */
  async #removeAll(documents: readonly StoredDocument[]): Promise<number> {
    if (documents.length === 0) return 0;
    const writes = documents.map(
      ({ metadata }): Write => ({
        kind: 'delete',
        ref: { collection: metadata._collection, id: metadata._id },
        precondition: { kind: 'revision', anyOf: [metadata._rev] },
      }),
    );
    try {
      await this.#store.commit(writes);
      return documents.length;
    } catch (error) {
      if (!hasCode(error, 'precondition_failed', 'document_not_found')) throw error;
    }
    let removed = 0;
    for (const document of documents) {
      const { _collection: collection, _id: id } = document.metadata;
      if (await this.#remove({ collection, id }, document)) removed++;
    }
    return removed;
  }

  /** Removes this very state of a document; whoever was faster is right. */
  async #remove(ref: DocumentRef, { metadata }: StoredDocument): Promise<boolean> {
    try {
      const precondition: Precondition = { kind: 'revision', anyOf: [metadata._rev] };
      await this.#store.commit([{ kind: 'delete', ref, precondition }]);
      return true;
    } catch (error) {
      if (hasCode(error, 'precondition_failed', 'document_not_found')) return false;
      throw error;
    }
  }

  #isAlive(ttl: Ttl | undefined, { text }: StoredDocument): boolean {
    return ttl === undefined || !isExpired(ttl, text, this.#clock.now());
  }
}

function specOf({ name, fields, unique, blind }: CollectionDefinition['indexes'][number]): IndexSpec {
  return { name: name ?? fields.join('+'), fields, unique, ...(blind === true ? { blind } : {}) };
}

/** A unique index is kept by tokens where nothing else can: its definition says so. */
function withTokens(definition: CollectionDefinition): CollectionDefinition {
  const indexes = definition.indexes.map((index) => (index.unique ? { ...index, blind: true } : index));
  return { ...definition, indexes };
}

function knownOf(stored: StoredDefinition): Known {
  let check: { readonly compiled: SchemaCheck | undefined } | undefined;
  return {
    ...stored,
    check: () => {
      check ??= { compiled: checkOf(stored.definition) };
      return check.compiled;
    },
  };
}

function checkOf({ schema }: CollectionDefinition): SchemaCheck | undefined {
  return schema === undefined ? undefined : compileSchema(schema);
}

/** @throws AppError `invalid_request` for a definition whose schema is not accepted. */
export function requireAcceptable(definition: CollectionDefinition): void {
  acceptedCheckOf(definition);
}

function acceptedCheckOf(definition: CollectionDefinition): SchemaCheck | undefined {
  const check = checkOf(definition);
  if (definition.schema !== undefined) requireFewAlternatives(definition.schema);
  return check;
}

/**
 * Makes what counts how many of some documents a definition's schema would refuse. To be made once for many: to compile a schema takes far longer
 * than to check a document.
 *
 * @throws AppError `invalid_request` for a schema that is not accepted.
 */
export function refusedCounter(
  definition: CollectionDefinition,
): (documents: readonly StoredDocument[]) => number {
  const check = checkOf(definition);
  if (check === undefined) return () => 0;
  return (documents) =>
    documents.filter(({ text, metadata }) => {
      const content = ownContentOf(text, { collection: metadata._collection, id: metadata._id });
      return check(parsed(content)).length > 0;
    }).length;
}

/** V8 may misread escaped names, see `json/read.ts` of shared. */
function parsed({ bytes }: DocumentContent): unknown {
  const text = `{${bytes.toString()}}`;
  return text.includes('\\') ? readJson(text) : JSON.parse(text);
}

/** A document that does not open can be replaced and deleted; whether it has expired nobody knows. */
function ignoreDamage(error: unknown): undefined {
  if (!hasCode(error, 'integrity_error')) throw error;
}
