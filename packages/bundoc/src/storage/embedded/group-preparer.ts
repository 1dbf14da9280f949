import type { Clock } from '@bundoc/shared/clock';
import { AppError } from '@bundoc/shared/errors';
import { smallRandom } from '@bundoc/shared/random';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import { composeStoredText } from '../../cipher/stored-text.ts';
import type { CommitOptions, Write, WriteResult } from '../port.ts';
import { requirePrecondition } from '../precondition.ts';
import type { Catalog } from './catalog.ts';
import { type DocumentState, type JournalRecord, REV_BYTES, type UsedKey } from './record.ts';
import type { SealBudget } from './seal-budget.ts';
import type { UsedKeys } from './used-keys.ts';

/** A document that is to be sealed anew: its state when it was read, and its text. */
export interface Unsealed {
  readonly state: DocumentState;
  readonly text: Buffer;
}

export interface Waiting {
  readonly writes: readonly Write[];
  readonly reseals: readonly Unsealed[];
  readonly options: CommitOptions;
  readonly bytes: number;
  readonly done: PromiseWithResolvers<readonly WriteResult[]>;
}

/** A commit that was found in order, and will be acknowledged once its frame is durable. */
export interface Prepared {
  readonly waiting: Waiting;
  readonly records: readonly JournalRecord[];
  readonly results: readonly WriteResult[];
}

export interface GroupPreparerOptions {
  readonly catalog: Catalog;
  readonly usedKeys: UsedKeys;
  readonly seals: SealBudget;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
}

const NOTHING = Buffer.alloc(0);

/**
 * Decides the commits of one frame, in their order, and seals what they write. Changes nothing: the records take effect once
 * they are durable. The seals must have been reserved.
 */
export class GroupPreparer {
  readonly #catalog: Catalog;
  readonly #usedKeys: UsedKeys;
  readonly #seals: SealBudget;
  readonly #cipher: ProjectCipher;
  readonly #clock: Clock;

  constructor({ catalog, usedKeys, seals, cipher, clock }: GroupPreparerOptions) {
    this.#catalog = catalog;
    this.#usedKeys = usedKeys;
    this.#seals = seals;
    this.#cipher = cipher;
    this.#clock = clock;
  }

  /** Checks each commit against all that come before it; one that is refused leaves no trace. */
  prepare(group: readonly Waiting[]): Prepared[] {
    const prepared: Prepared[] = [];
    const states = new Map<string, DocumentState>();
    const usedHere = new Map<string, UsedKey>();
    let seq = this.#catalog.lastSeq;
    for (const waiting of group) {
      try {
        const nowMs = this.#clock.now();
        const repeated = this.#repeated(waiting, usedHere, nowMs);
        if (repeated !== undefined) {
          prepared.push({ waiting, records: [], results: repeated });
          continue;
        }
        const own = new Map<string, DocumentState>();
        const records: JournalRecord[] = [];
        const results: WriteResult[] = [];
        for (const write of waiting.writes) {
          const key = `${write.ref.collection}\0${write.ref.id}`;
          const before = own.get(key) ?? states.get(key) ?? this.#catalog.get(write.ref);
          const { state, sealed, result } = this.#apply(write, before, ++seq, nowMs);
          own.set(key, state);
          records.push({ kind: 'document', state, sealed });
          results.push(result);
        }
        for (const { state, text } of waiting.reseals) {
          const key = `${state.collection}\0${state.id}`;
          const now = states.get(key) ?? this.#catalog.get(state);
          if (now?.seq === state.seq) records.push(this.#resealed(now, text));
        }
        const { idempotency } = waiting.options;
        if (idempotency !== undefined) {
          const used = { ...idempotency, atMs: nowMs, answer: JSON.stringify(results) };
          usedHere.set(used.key, used);
          records.push({ kind: 'used key', used });
        }
        for (const [key, state] of own) states.set(key, state);
        prepared.push({ waiting, records, results });
      } catch (error) {
        waiting.done.reject(error);
      }
    }
    return prepared;
  }

  #repeated(
    { options }: Waiting,
    usedHere: ReadonlyMap<string, UsedKey>,
    nowMs: number,
  ): readonly WriteResult[] | undefined {
    const { idempotency } = options;
    if (idempotency === undefined) return undefined;
    const here = usedHere.get(idempotency.key);
    if (here !== undefined && here.request !== idempotency.request)
      throw new AppError('idempotency_mismatch');
    const used = here ?? this.#usedKeys.find(idempotency, nowMs);
    return used === undefined ? undefined : (JSON.parse(used.answer) as WriteResult[]);
  }

  #apply(
    write: Write,
    before: DocumentState | undefined,
    seq: number,
    nowMs: number,
  ): { state: DocumentState; sealed: Buffer; result: WriteResult } {
    const living = before?.deletedMs === 0 ? before : undefined;
    requirePrecondition(write.precondition, living?.rev.toString('hex'));
    const cipher = this.#cipher;
    const rev = smallRandom(REV_BYTES);
    const name = before?.fileName.toString('hex') ?? cipher.fileName(write.ref);
    const common = {
      collection: write.ref.collection,
      id: write.ref.id,
      fileName: Buffer.from(name, 'hex'),
      seq,
      createdSeq: living?.createdSeq ?? seq,
      createdMs: living?.createdMs ?? nowMs,
      rev,
      keyVersion: cipher.version,
    };
    if (write.kind === 'delete') {
      if (living === undefined) throw new AppError('document_not_found');
      const state = { ...common, size: 0, deletedMs: Math.max(1, nowMs) };
      return { state, sealed: NOTHING, result: { created: false, metadata: undefined } };
    }
    const metadata = {
      _id: write.ref.id,
      _collection: write.ref.collection,
      _rev: rev.toString('hex'),
      _created: new Date(common.createdMs).toISOString(),
      _updated: new Date(nowMs).toISOString(),
    };
    const sealed = this.#seal(name, composeStoredText(metadata, write.content));
    const state = { ...common, size: sealed.length, deletedMs: 0 };
    return { state, sealed, result: { created: living === undefined, metadata } };
  }

  /** The same state of a document, sealed under the current version. */
  #resealed(state: DocumentState, text: Buffer): JournalRecord {
    const cipher = this.#cipher;
    const sealed = this.#seal(state.fileName.toString('hex'), text);
    return { kind: 'document', state: { ...state, keyVersion: cipher.version, size: sealed.length }, sealed };
  }

  #seal(fileName: string, text: Buffer): Buffer {
    this.#seals.sealed();
    return this.#cipher.sealDocument(fileName, text);
  }
}
