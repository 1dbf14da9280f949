import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { LRUCache } from 'lru-cache';
import type { StoredDefinition } from '../engine/port/definition.ts';
import type { CommitOptions, Write } from '../engine/port/port.ts';
import { RefusedWrite } from '../engine/port/refused-write.ts';
import type { OwnWork, Work } from '../work/work.ts';
import type { Schema } from './json-schema.ts';
import { type CheckInTurns, checkInTurnsOf } from './schema-checks.ts';

/**
 * Maximum characters of the schemas that a project keeps compiled. Compiled schemas take up to ninety times
 * as much memory, and a project may have a thousand of 64 KiB.
 */
const COMPILED_LENGTH_MAX = 524_288;
const COMPILED_TO_LENGTH = 90;

/** The schemas of a project's definitions, as checks of documents. */
export class KnownSchemas {
  readonly #definitionOf: (collection: string) => StoredDefinition | undefined;
  readonly #ownWork: OwnWork;
  readonly #checks = new LRUCache<StoredDefinition, CheckInTurns>({
    maxSize: COMPILED_LENGTH_MAX,
    sizeCalculation: (_check, { definition }) => JSON.stringify(definition.schema).length,
  });

  /** @param definitionOf throws AppError `integrity_error` for a definition that does not open. */
  constructor(definitionOf: (collection: string) => StoredDefinition | undefined, ownWork: OwnWork) {
    this.#definitionOf = definitionOf;
    this.#ownWork = ownWork;
  }

  /** Estimated memory of compiled schemas, bytes. */
  get memoryBytes(): number {
    return this.#checks.calculatedSize * COMPILED_TO_LENGTH;
  }

  /**
   * Checks documents against their schemas. Other requests run between the checks.
   *
   * @throws RefusedWrite `schema_violation`.
   */
  async require(writes: readonly Write[], { work }: CommitOptions): Promise<void> {
    if (work !== undefined) return await this.#require(writes, work);
    using own = this.#ownWork('write');
    await this.#require(writes, own);
  }

  async #require(writes: readonly Write[], work: Work): Promise<void> {
    for (const [index, write] of writes.entries()) {
      if (write.kind === 'delete') continue;
      const known = this.#definitionOf(write.ref.collection);
      if (known?.definition.schema === undefined) continue;
      const turn = work.pause();
      if (turn !== undefined) await turn;
      const found = this.#checkOf(known, known.definition.schema)(write.content, work);
      const errors = found instanceof Promise ? await found : found;
      if (errors.length > 0) throw new RefusedWrite('schema_violation', index, { errors });
    }
    work.leave();
  }

  /** @throws AppError `integrity_error` for a stored schema that is not accepted: its rules are unknown. */
  #checkOf(definition: StoredDefinition, schema: Schema): CheckInTurns {
    const known = this.#checks.get(definition);
    if (known !== undefined) return known;
    try {
      const check = checkInTurnsOf(schema);
      this.#checks.set(definition, check);
      return check;
    } catch (error) {
      throw hasCode(error, 'invalid_request') ? new AppError('integrity_error', { cause: error }) : error;
    }
  }
}
