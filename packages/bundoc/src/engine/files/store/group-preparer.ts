import { AppError } from '@bundoc/shared/contract/app-error';
import { SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import { smallRandom } from '@bundoc/shared/crypto/random';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { composeStoredText, type DocumentRef } from '../../../crypto/stored-text.ts';
import { ByteWriter } from '../../bytes.ts';
import type { WaitingCommit, Write, WriteResult } from '../../port.ts';
import { holds, preconditionsFailed } from '../../precondition.ts';
import { addedBy, NOTHING, type Quota, QuotaOfGroup, sumOf } from '../../quota.ts';
import type { SealBudget } from '../../seal-budget.ts';
import {
  type DocumentState,
  REV_BYTES,
  type UsedKey,
  writeDocument,
  writeUsedKeyRecord,
} from '../../state.ts';
import type { UsedKeys } from '../../used-keys.ts';
import type { Catalog } from '../catalog/catalog.ts';
import {
  type CollectionIndexes,
  type DocumentKeys,
  keepApart,
  uniquenessOfGroup,
} from './collection-indexes.ts';

/** A document to re-seal: its state when it was read, and its text. */
export interface Unsealed {
  readonly state: DocumentState;
  readonly text: Buffer;
}

/** A commit that waits, with documents to re-seal. */
export interface Waiting extends WaitingCommit {
  readonly reseals: readonly Unsealed[];
}

/** A commit that was found in order, and will be acknowledged once its frame is durable. */
export interface Prepared {
  readonly waiting: Waiting;
  readonly results: readonly WriteResult[];
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
  | { readonly kind: 'used key'; readonly used: UsedKey };

/**
 * What a state changes in the indexes of its collection. Absent for a re-sealed document, which changes
 * nothing.
 */
export interface Indexing {
  /** Of the stored document; undefined for a deleted one. */
  readonly text: Buffer | undefined;
  readonly keys: DocumentKeys | undefined;
}

export interface PreparedGroup {
  readonly commits: readonly Prepared[];
  /** Plaintext of the frame; empty when there is nothing to write. */
  readonly frame: Buffer;
  /** In their order. */
  readonly changes: readonly FrameChange[];
}

export interface GroupPreparerOptions {
  readonly catalog: Catalog;
  readonly usedKeys: UsedKeys;
  readonly seals: SealBudget;
  readonly indexes: CollectionIndexes;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly quota?: Quota | undefined;
}

/** What a record takes in a frame beside its sealed bytes, if its names are not unusually long. */
const RECORD_BYTES = 256;

/**
 * A document of the frame that is being written: its sealed bytes are found by their place, since the frame
 * may move as it grows.
 */
interface Placed {
  readonly kind: 'document';
  readonly state: DocumentState;
  readonly fileName: string;
  readonly start: number;
  readonly indexing: Indexing | undefined;
}

type PlacedChange = Placed | Extract<FrameChange, { kind: 'used key' }>;

/**
 * Decides the commits of one frame, in their order, and seals what they write right into it. Changes nothing:
 * the changes take effect once the frame is durable. The seals must have been reserved.
 */
export class GroupPreparer {
  readonly #catalog: Catalog;
  readonly #usedKeys: UsedKeys;
  readonly #seals: SealBudget;
  readonly #indexes: CollectionIndexes;
  readonly #cipher: ProjectCipher;
  readonly #clock: Clock;
  readonly #quota: Quota | undefined;

  constructor({ catalog, usedKeys, seals, indexes, cipher, clock, quota }: GroupPreparerOptions) {
    this.#catalog = catalog;
    this.#usedKeys = usedKeys;
    this.#seals = seals;
    this.#indexes = indexes;
    this.#cipher = cipher;
    this.#clock = clock;
    this.#quota = quota;
  }

  /** Checks each commit against all that come before it; one that is refused leaves no trace. */
  prepare(group: readonly Waiting[]): PreparedGroup {
    const commits: Prepared[] = [];
    const placed: PlacedChange[] = [];
    const states = new Map<string, DocumentState>();
    const usedHere = new Map<string, UsedKey>();
    const uniqueness = uniquenessOfGroup();
    const quota =
      this.#quota && new QuotaOfGroup(this.#quota, this.#catalog.collections().reduce(sumOf, NOTHING));
    const writer = new ByteWriter(group.reduce((sum, waiting) => sum + likelyBytes(waiting), 0));
    let seq = this.#catalog.lastSeq;
    for (const waiting of group) {
      const before = { bytes: writer.length, changes: placed.length };
      try {
        const nowMs = this.#clock.now();
        const repeated = this.#repeated(waiting, usedHere, nowMs);
        if (repeated !== undefined) {
          commits.push({ waiting, results: repeated });
          continue;
        }
        const own = new Map<string, DocumentState>();
        const uniquely = uniqueness.commit();
        const results: WriteResult[] = [];
        let added = NOTHING;
        const former = (ref: DocumentRef, key: string) =>
          own.get(key) ?? states.get(key) ?? this.#catalog.get(ref);
        for (const [index, write] of waiting.writes.entries()) {
          const key = keyOf(write.ref);
          const present = former(write.ref, key);
          if (!holds(write.precondition, revOf(present)))
            throw preconditionsFailed(waiting.writes, index, (at) => {
              const { ref } = waiting.writes[at] as Write;
              return revOf(former(ref, keyOf(ref)));
            });
          const { change, result } = this.#apply(writer, write, present, ++seq, nowMs);
          own.set(key, change.state);
          if (quota !== undefined) added = sumOf(added, addedBy(present, change.state));
          const keys = change.indexing?.keys;
          if (keys !== undefined) keepApart(uniquely, write.ref.id, keys);
          placed.push(change);
          results.push(result);
        }
        for (const { state, text } of waiting.reseals) {
          const key = keyOf(state);
          const now = states.get(key) ?? this.#catalog.get(state);
          if (now?.seq === state.seq) placed.push(this.#resealed(writer, now, text));
        }
        quota?.admit(added);
        const { idempotency } = waiting.options;
        if (idempotency !== undefined) {
          const used = { ...idempotency, atMs: nowMs, answer: JSON.stringify(results) };
          usedHere.set(used.key, used);
          writeUsedKeyRecord(writer, used);
          placed.push({ kind: 'used key', used });
        }
        for (const [key, state] of own) states.set(key, state);
        uniquely.accept();
        commits.push({ waiting, results });
      } catch (error) {
        writer.truncate(before.bytes);
        placed.length = before.changes;
        waiting.done.reject(error);
      }
    }
    const frame = writer.finish();
    return { commits, frame, changes: placed.map((change) => changeOf(change, frame)) };
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
    writer: ByteWriter,
    write: Write,
    before: DocumentState | undefined,
    seq: number,
    nowMs: number,
  ): { change: Placed; result: WriteResult } {
    const living = before?.deletedMs === 0 ? before : undefined;
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
      writeDocument(writer, state);
      const indexing = { text: undefined, keys: this.#indexes.noKeysOf(write.ref.collection) };
      const change: Placed = { kind: 'document', state, fileName: name, start: writer.length, indexing };
      return { change, result: { created: false, metadata: undefined } };
    }
    const metadata = {
      _id: write.ref.id,
      _collection: write.ref.collection,
      _rev: rev.toString('hex'),
      _created: timeOf(common.createdMs),
      _updated: timeOf(nowMs),
    };
    const text = composeStoredText(metadata, write.content);
    const indexing = { text, keys: this.#indexes.keysOf(write.ref.collection, text, write.content) };
    const change = this.#seal(writer, common, name, text, indexing);
    return { change, result: { created: living === undefined, metadata } };
  }

  /** The same state of a document, sealed under the current version. */
  #resealed(writer: ByteWriter, state: DocumentState, text: Buffer): Placed {
    const former = { ...state, keyVersion: this.#cipher.version };
    return this.#seal(writer, former, state.fileName.toString('hex'), text, undefined);
  }

  #seal(
    writer: ByteWriter,
    common: Omit<DocumentState, 'size' | 'deletedMs'>,
    fileName: string,
    text: Buffer,
    indexing: Indexing | undefined,
  ): Placed {
    const state = { ...common, size: text.length + SEAL_OVERHEAD_BYTES, deletedMs: 0 };
    const room = writeDocument(writer, state);
    this.#seals.sealed();
    this.#cipher.sealDocument(fileName, text, room);
    return { kind: 'document', state, fileName, start: writer.length - room.length, indexing };
  }
}

let latest = { ms: Number.NaN, text: '' };

/** A moment as text: mostly it is the one that was asked for last, of whatever project. */
function timeOf(ms: number): string {
  if (ms !== latest.ms) latest = { ms, text: new Date(ms).toISOString() };
  return latest.text;
}

function keyOf(ref: DocumentRef): string {
  return `${ref.collection}\0${ref.id}`;
}

function revOf(state: DocumentState | undefined): string | undefined {
  return state?.deletedMs === 0 ? state.rev.toString('hex') : undefined;
}

function changeOf(change: PlacedChange, frame: Buffer): FrameChange {
  if (change.kind === 'used key') return change;
  const { kind, state, fileName, start, indexing } = change;
  return { kind, state, fileName, sealed: frame.subarray(start, start + state.size), indexing };
}

/** What a commit takes in a part of the log, about. */
export function likelyBytes({ writes, reseals }: Waiting): number {
  let bytes = (writes.length + reseals.length) * RECORD_BYTES;
  for (const write of writes)
    if (write.kind === 'put') bytes += 2 * RECORD_BYTES + write.content.bytes.length;
  for (const { text } of reseals) bytes += text.length;
  return bytes;
}
