import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import { LRUCache } from 'lru-cache';
import type { DocumentContent } from '../crypto/stored-text.ts';
import type { StoredDefinition } from '../engine/definition.ts';
import type { CommitOptions, Write } from '../engine/port.ts';
import type { OwnWork, Work } from '../work/work.ts';
import { acceptInTurns, type CheckInTurns, checkInTurnsOf } from './schema-checks.ts';

/**
 * Maximum characters of the schemas that a project keeps compiled. Compiled schemas take some forty times as
 * much memory, and a project may have a thousand of 64 KiB.
 */
const COMPILED_LENGTH_MAX = 1_048_576;
const COMPILED_TO_LENGTH = 40;

export interface KnownSchemasOptions {
  /** The definition of a collection. @throws AppError `integrity_error` for one that does not open. */
  readonly of: (collection: string) => StoredDefinition | undefined;
  /** Called for a schema that was accepted once and no longer is. */
  readonly onRefused: (collection: string) => void;
  readonly ownWork: OwnWork;
}

/** The schemas of a project's definitions, as checks of documents. */
export class KnownSchemas {
  readonly #options: KnownSchemasOptions;
  /** The first write that needs a schema compiles it: a large one takes most of a second. */
  readonly #checks = new LRUCache<StoredDefinition, CheckInTurns>({
    maxSize: COMPILED_LENGTH_MAX,
    sizeCalculation: (_check, { definition }) => JSON.stringify(definition.schema).length,
  });

  constructor(options: KnownSchemasOptions) {
    this.#options = options;
  }

  /** Estimated memory of compiled schemas, bytes. */
  get memoryBytes(): number {
    return this.#checks.calculatedSize * COMPILED_TO_LENGTH;
  }

  /**
   * Checks documents against their schemas. The check of one document may take most of a second, so other
   * requests run in between.
   *
   * @throws AppError `schema_violation`.
   */
  async require(writes: readonly Write[], { work }: CommitOptions): Promise<void> {
    if (work !== undefined) return await this.#require(writes, work);
    using own = this.#options.ownWork('write');
    await this.#require(writes, own);
  }

  /** Compiles the schema of a new definition. @throws AppError `invalid_request`. */
  async accept({ schema }: CollectionDefinition, { work }: CommitOptions): Promise<CheckInTurns | undefined> {
    if (schema === undefined) return undefined;
    if (work !== undefined) return await acceptInTurns(schema, work);
    using own = this.#options.ownWork('definition');
    return await acceptInTurns(schema, own);
  }

  keep(definition: StoredDefinition, check: CheckInTurns): void {
    this.#checks.set(definition, check);
  }

  async #require(writes: readonly Write[], work: Work): Promise<void> {
    for (const write of writes) {
      if (write.kind === 'delete') continue;
      const { collection } = write.ref;
      if (this.#options.of(collection)?.definition.schema === undefined) continue;
      const turn = work.pause();
      if (turn !== undefined) await turn;
      const errors = await this.#faultsOf(collection, write.content, work);
      if (errors.length > 0) throw new AppError('schema_violation', { errors });
    }
    work.leave();
  }

  /**
   * @throws AppError `integrity_error` for a schema that was accepted once and no longer is: its rules are
   *   unknown.
   */
  async #faultsOf(collection: string, content: DocumentContent, work: Work): Promise<readonly FieldFault[]> {
    try {
      const faults = this.#checkOf(collection)?.(content, work) ?? [];
      return faults instanceof Promise ? await faults : faults;
    } catch (error) {
      if (!hasCode(error, 'invalid_request')) throw error;
      this.#options.onRefused(collection);
      throw new AppError('integrity_error', { cause: error });
    }
  }

  /** @throws AppError `invalid_request` for a schema that is no longer accepted. */
  #checkOf(collection: string): CheckInTurns | undefined {
    const known = this.#options.of(collection);
    if (known?.definition.schema === undefined) return undefined;
    const check = this.#checks.get(known) ?? checkInTurnsOf(known.definition.schema);
    this.keep(known, check);
    return check;
  }
}
