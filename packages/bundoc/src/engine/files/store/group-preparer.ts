import { SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { DocumentRef } from '../../../crypto/stored-text.ts';
import type { PlanContext, PlannedWrite } from '../../commit/commit-plan.ts';
import { draftsOf, planCommits } from '../../commit/commit-plan.ts';
import type { IdempotencyRecords } from '../../commit/idempotency-records.ts';
import type { Quota } from '../../commit/quota.ts';
import { ByteWriter } from '../../port/bytes.ts';
import type { Position, WaitingCommit, Write, WriteResult } from '../../port/port.ts';
import type { SealBudget } from '../../port/seal-budget.ts';
import {
  appendIdempotencyRecord,
  type DocumentState,
  type IdempotencyRecord,
  writeDocument,
} from '../../port/state.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { type CollectionIndexes, type DocumentKeys, planIndexing } from './collection-indexes.ts';

/** A document to re-seal: its state when it was read, and its text. */
export interface Unsealed {
  readonly state: DocumentState;
  readonly text: Buffer;
}

/** A waiting commit, with documents to re-seal. */
export interface Waiting extends WaitingCommit {
  readonly reseals: readonly Unsealed[];
}

/**
 * A commit of a frame with its outcome, which is answered once the frame is durable: a refusal may depend on
 * an earlier commit of the frame.
 */
export interface Prepared {
  readonly waiting: Waiting;
  readonly outcome: { readonly results: readonly WriteResult[] } | { readonly refusal: unknown };
}

/** Answers a commit. */
export function answerTo({ waiting: { done }, outcome }: Prepared): void {
  if ('refusal' in outcome) done.reject(outcome.refusal);
  else done.resolve(outcome.results);
}

/** What becomes visible once the frame is durable. */
export type FrameChange =
  | {
      readonly kind: 'document';
      readonly state: DocumentState;
      /** Hex of the state's file name. */
      readonly fileName: string;
      /** A view of the frame; empty for a delete. */
      readonly sealed: Buffer;
      readonly indexing: Indexing | undefined;
    }
  | { readonly kind: 'idempotency record'; readonly used: IdempotencyRecord };

/**
 * The change of a state to the indexes of its collection. Absent for a re-sealed document, which changes
 * nothing.
 */
export interface Indexing {
  /** The text of the stored document; undefined for a deleted one. */
  readonly text: Buffer | undefined;
  readonly keys: DocumentKeys | undefined;
}

/** A document with space in the frame for its sealed bytes, not sealed yet. */
export interface ToSeal {
  readonly fileName: string;
  readonly text: Buffer;
  readonly target: Buffer;
}

export interface PreparedGroup {
  readonly commits: readonly Prepared[];
  /** Plaintext of the frame, once all is sealed; empty when there is nothing to write. */
  readonly frame: Buffer;
  /** In the order of the commits. */
  readonly changes: readonly FrameChange[];
  readonly toSeal: readonly ToSeal[];
}

export interface GroupPreparerOptions {
  readonly catalog: Catalog;
  readonly idempotencyRecords: IdempotencyRecords;
  readonly seals: SealBudget;
  readonly indexes: CollectionIndexes;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly quota?: Quota | undefined;
  /** The position after which the next commit comes. */
  readonly position: () => Position;
}

/** Approximate bytes of a record in a frame without its sealed bytes. */
const RECORD_BYTES = 256;

/**
 * A document of the frame being composed. Its sealed bytes are identified by their offset, because the frame
 * may move as it grows.
 */
interface Placed {
  readonly kind: 'document';
  readonly state: DocumentState;
  readonly fileName: string;
  readonly start: number;
  /** The text to seal there; undefined for a delete. */
  readonly text: Buffer | undefined;
  readonly indexing: Indexing | undefined;
}

type PlacedChange = Placed | Extract<FrameChange, { kind: 'idempotency record' }>;

/**
 * Plans the commits of one frame, with space for what they seal. Changes no state: the changes take effect
 * once the frame is durable. The seals must already be reserved.
 */
export class GroupPreparer {
  readonly #catalog: Catalog;
  readonly #idempotencyRecords: IdempotencyRecords;
  readonly #seals: SealBudget;
  readonly #indexes: CollectionIndexes;
  readonly #cipher: ProjectCipher;
  readonly #clock: Clock;
  readonly #quota: Quota | undefined;
  readonly #position: () => Position;

  constructor(options: GroupPreparerOptions) {
    const { catalog, idempotencyRecords, seals, indexes, cipher, clock, quota, position } = options;
    this.#catalog = catalog;
    this.#idempotencyRecords = idempotencyRecords;
    this.#seals = seals;
    this.#indexes = indexes;
    this.#cipher = cipher;
    this.#clock = clock;
    this.#quota = quota;
    this.#position = position;
  }

  prepare(group: readonly Waiting[]): PreparedGroup {
    const { outcomes } = planCommits(group, draftsOf(group, this.#clock), this.#context());
    const commits: Prepared[] = [];
    const placed: PlacedChange[] = [];
    const states = new Map<string, DocumentState>();
    const writer = new ByteWriter(group.reduce((sum, waiting) => sum + estimatedBytes(waiting), 0));
    for (const [place, outcome] of outcomes.entries()) {
      const waiting = group[place] as Waiting;
      if (outcome.kind === 'refused') {
        commits.push({ waiting, outcome: { refusal: outcome.error } });
        continue;
      }
      for (const write of outcome.writes) {
        states.set(write.key, write.state);
        placed.push(this.#place(writer, write));
      }
      for (const { state, text } of waiting.reseals) {
        const now = states.get(keyOf(state)) ?? this.#catalog.get(state);
        if (now?.seq === state.seq) placed.push(this.#resealed(writer, now, text));
      }
      if (outcome.idempotencyRecord !== undefined) {
        appendIdempotencyRecord(writer, outcome.idempotencyRecord);
        placed.push({ kind: 'idempotency record', used: outcome.idempotencyRecord });
      }
      commits.push({ waiting, outcome: { results: outcome.results } });
    }
    const frame = writer.finish();
    const toSeal = placed.flatMap((change) => toSealOf(change, frame));
    return { commits, frame, changes: placed.map((change) => changeOf(change, frame)), toSeal };
  }

  #context(): PlanContext<Waiting, DocumentKeys> {
    const catalog = this.#catalog;
    return {
      seq: this.#position(),
      keyVersion: this.#cipher.version,
      sealsLeft: Number.POSITIVE_INFINITY,
      quota: this.#quota,
      usage: this.#quota && catalog.usage,
      keyOf: ({ writes }, at) => keyOf((writes[at] as Write).ref),
      stateOf: (ref) => catalog.get(ref),
      fileNameOf: (ref) => this.#cipher.fileName(ref),
      idempotencyRecordOf: (key) => this.#idempotencyRecords.get(key),
      indexing: planIndexing(this.#indexes),
    };
  }

  #place(writer: ByteWriter, { state, fileName, text, entries }: PlannedWrite<DocumentKeys>): Placed {
    const indexing = { text, keys: entries };
    if (text !== undefined) return this.#reserve(writer, state, fileName, text, indexing);
    writeDocument(writer, state);
    return { kind: 'document', state, fileName, start: writer.length, text, indexing };
  }

  /** The same state of a document, sealed under the current version. */
  #resealed(writer: ByteWriter, state: DocumentState, text: Buffer): Placed {
    const size = text.length + SEAL_OVERHEAD_BYTES;
    const now = { ...state, size, keyVersion: this.#cipher.version };
    return this.#reserve(writer, now, state.fileName.toString('hex'), text, undefined);
  }

  #reserve(
    writer: ByteWriter,
    state: DocumentState,
    fileName: string,
    text: Buffer,
    indexing: Indexing | undefined,
  ): Placed {
    const room = writeDocument(writer, state);
    this.#seals.sealed();
    return { kind: 'document', state, fileName, start: writer.length - room.length, text, indexing };
  }
}

function keyOf(ref: DocumentRef): string {
  return `${ref.collection}\0${ref.id}`;
}

function toSealOf(change: PlacedChange, frame: Buffer): ToSeal[] {
  if (change.kind === 'idempotency record' || change.text === undefined) return [];
  const { state, fileName, start, text } = change;
  return [{ fileName, text, target: frame.subarray(start, start + state.size) }];
}

function changeOf(change: PlacedChange, frame: Buffer): FrameChange {
  if (change.kind === 'idempotency record') return change;
  const { kind, state, fileName, start, indexing } = change;
  return { kind, state, fileName, sealed: frame.subarray(start, start + state.size), indexing };
}

/** Approximate bytes of a commit in a part of the log. */
export function estimatedBytes({ writes, reseals }: Waiting): number {
  let bytes = (writes.length + reseals.length) * RECORD_BYTES;
  for (const write of writes)
    if (write.kind === 'put') bytes += 2 * RECORD_BYTES + write.content.bytes.length;
  for (const { text } of reseals) bytes += text.length;
  return bytes;
}
