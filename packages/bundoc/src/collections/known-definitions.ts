import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition, Ttl } from '@bundoc/shared/contract/collections';
import { Mutex } from '@bundoc/shared/runtime/mutex';
import {
  contentOfDefinition,
  DEFINITIONS,
  DEFINITIONS_MAX,
  definitionRef,
  readDefinition,
  type StoredDefinition,
} from '../engine/port/definition.ts';
import { digestOfRevs, NO_DEFINITIONS } from '../engine/port/definitions-state.ts';
import type { IndexSpec } from '../engine/port/index-port.ts';
import type {
  CommitOptions,
  DocumentPage,
  Position,
  Precondition,
  ProjectStore,
  StoredDocument,
} from '../engine/port/port.ts';
import type { OwnWork } from '../work/work.ts';
import { KnownSchemas } from './known-schemas.ts';

/** Memory of a parsed definition in relation to its text. */
const PARSED_TO_LENGTH = 6;
/** The definitions read at a time. */
const DEFINITION_PAGE = { limit: 100, bytesMax: 8_388_608 };

/**
 * The definitions of a project's collections: read from the store, kept in memory, and applied to its
 * indexes. Each store has one instance, so its view is always current.
 */
export class KnownDefinitions {
  readonly #store: ProjectStore;
  readonly #beforeExpiring: () => Promise<void>;
  readonly #known = new Map<string, StoredDefinition>();
  /** Collections with an undecryptable definition: their rules are unknown. */
  readonly #damaged = new Set<string>();
  /** Opaque names of definitions whose content and collection cannot be decrypted. */
  #unnamed: ReadonlySet<string> = new Set();
  readonly #defining = new Mutex();
  readonly schemas: KnownSchemas;
  /** Size of the texts of definitions in bytes, by collection and in total. */
  readonly #bytesOf = new Map<string, number>();
  #bytes = 0;
  #digest: string | undefined = NO_DEFINITIONS;

  /**
   * @param beforeExpiring called before a definition gives documents a time to live; when it rejects, the
   *   definition is not made.
   */
  constructor(store: ProjectStore, ownWork: OwnWork, beforeExpiring: () => Promise<void>) {
    this.#store = store;
    this.schemas = new KnownSchemas((collection) => this.of(collection), ownWork);
    this.#beforeExpiring = beforeExpiring;
  }

  /**
   * Reads all definitions and applies their indexes. Called first, and again when other nodes may have
   * changed them.
   */
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
      await this.#store.indexes?.keep?.();
    });
  }

  /** Names of the defined collections, as far as they can be decrypted. */
  get names(): readonly string[] {
    return [...new Set([...this.#known.keys(), ...this.#damaged])];
  }

  /** Estimated memory of definitions and their compiled schemas, bytes. */
  get memoryBytes(): number {
    return this.#bytes * PARSED_TO_LENGTH + this.schemas.memoryBytes;
  }

  /** A digest of their revisions; undefined while one cannot be decrypted. */
  get digest(): string | undefined {
    if (this.#damaged.size + this.#unnamed.size > 0) return undefined;
    this.#digest ??= digestOfRevs(Array.from(this.#known.values(), ({ rev }) => rev));
    return this.#digest;
  }

  get isEmpty(): boolean {
    return this.#known.size + this.#damaged.size + this.#unnamed.size === 0;
  }

  /** The times to live, by collection. */
  *ttls(): Generator<readonly [collection: string, ttl: Ttl]> {
    for (const [collection, { definition }] of this.#known)
      if (definition.ttl !== undefined) yield [collection, definition.ttl];
  }

  /** As {@link CollectionStore.define}. */
  define(
    collection: string,
    definition: CollectionDefinition | undefined,
    precondition: Precondition,
    options: CommitOptions,
  ): Promise<{ created: boolean; rev: string | undefined }> {
    // One at a time, so that the last definition learned is the last one committed.
    return this.#defining.run(() => this.#define(collection, definition, precondition, options));
  }

  /** @throws AppError `integrity_error` for one that cannot be decrypted. */
  of(collection: string): StoredDefinition | undefined {
    const isDamaged = this.#damaged.size > 0 && this.#damaged.has(collection);
    if (isDamaged || this.#isUnnamed(collection)) throw new AppError('integrity_error');
    return this.#known.get(collection);
  }

  /** Whether the definition of this collection may be among those with an opaque name. */
  #isUnnamed(collection: string): boolean {
    if (this.#unnamed.size === 0) return false;
    const name = this.#store.nameOf?.(definitionRef(collection));
    return name !== undefined && this.#unnamed.has(name);
  }

  #loadOne(document: StoredDocument): void {
    const { _id: name, _rev: rev } = document.metadata;
    if (this.#known.get(name)?.rev === rev) return;
    try {
      this.#learn(name, readDefinition(document), document.text.length, true);
    } catch {
      this.#damaged.add(name);
    }
  }

  #learn(collection: string, known: StoredDefinition, bytes: number, wasDefined = false): void {
    this.#known.set(collection, known);
    this.#digest = undefined;
    this.#countBytes(collection, bytes);
    const specs = known.definition.indexes.map(specOf);
    this.#store.indexes?.define(collection, specs, { rev: known.rev, wasDefined });
    this.#damaged.delete(collection);
  }

  /**
   * Reads the definition of a collection after a commit. It differs from the committed one after a repetition
   * or a faster writer.
   *
   * @param committed undefined for a removal.
   */
  async #relearn(collection: string, committed?: StoredDefinition): Promise<void> {
    const ref = definitionRef(collection);
    const document = await this.#store.get(ref);
    if (this.#isUnnamed(collection)) {
      const name = this.#store.nameOf?.(ref);
      this.#unnamed = new Set([...this.#unnamed].filter((one) => one !== name));
    }
    if (document === undefined) this.#forget(collection);
    else if (document.metadata._rev === committed?.rev)
      this.#learn(collection, committed, document.text.length);
    else this.#loadOne(document);
  }

  #forget(collection: string): void {
    this.#store.indexes?.define(collection, [], { rev: undefined, wasDefined: false });
    this.#known.delete(collection);
    this.#digest = undefined;
    this.#countBytes(collection, 0);
    this.#damaged.delete(collection);
  }

  #countBytes(collection: string, bytes: number): void {
    this.#bytes += bytes - (this.#bytesOf.get(collection) ?? 0);
    if (bytes === 0) this.#bytesOf.delete(collection);
    else this.#bytesOf.set(collection, bytes);
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
      await this.#store.indexes?.keep?.();
      return { created: false, rev: undefined };
    }
    if (!this.#known.has(collection) && this.#known.size >= DEFINITIONS_MAX)
      throw new AppError('invalid_request', {
        detail: `a project has at most ${DEFINITIONS_MAX} definitions`,
      });
    const content = contentOfDefinition(definition);
    if (definition.ttl !== undefined) await this.#beforeExpiring();
    const [result] = await this.#store.commit([{ kind: 'put', ref, content, precondition }], options);
    if (result?.metadata === undefined) throw new Error('a put has no metadata');
    const rev = result.metadata._rev;
    await this.#relearn(collection, { definition, rev });
    await this.#store.indexes?.keep?.();
    return { created: result.created, rev };
  }
}

function specOf({ name, fields, unique }: CollectionDefinition['indexes'][number]): IndexSpec {
  return { name: name ?? fields.join('+'), fields, unique };
}
