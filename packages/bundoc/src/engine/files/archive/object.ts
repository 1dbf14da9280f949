import { hash } from 'node:crypto';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { FramePlace } from '../log/layout.ts';

/** An object of the archive is missing, incomplete or changed, or of another storage or format. */
export class ArchiveDamaged extends Error {
  override readonly name = 'ArchiveDamaged';
}

const MAGIC = 'BUNDOCA1';
const EPOCH_BYTES = 16;
const BEFORE_EPOCH = 48;
const BEFORE_HASH = 72;
const TIME = 104;
const END = 110;
const LOG = 122;
const ROUND = 134;
const TAKEN_OVER = 158;
const LENGTH = 164;
const RECORDS = 168;
const HASH_BYTES = 32;
const RECORD_HEAD_BYTES = 5;
const NO_EPOCH = '0'.repeat(2 * EPOCH_BYTES);
const NO_HANDLE = '0'.repeat(16);
/** Maximum size of an object. The largest record is the header of a segment with its index. */
export const OBJECT_BYTES_MAX = 33_554_432;
/** Files of a project's folder, without those of documents and carried parts. */
export const SMALL_FILES = ['project.json', 'deleted.json', 'move.mark', 'expires-1', 'restoring'] as const;
/** Files that a base has. */
const FILE_NAME =
  /^(?:project\.json|deleted\.json|move\.mark|expires-1|restoring|catalog|docs\/[0-9a-f]{32}|carried\/[1-9][0-9]{0,15}(?:-stuck)?)$/;

/** The place of an object in the archive. */
export interface ObjectId {
  /** 32 hexadecimal digits. */
  readonly epoch: string;
  /** From 1. */
  readonly n: number;
}

export interface ShippedObject extends ObjectId {
  /** SHA-256, 32 bytes. */
  readonly hash: Buffer;
}

/** A round that has ended. */
export interface RoundPlace {
  /** The object in which it ended. */
  readonly endedIn: number;
  /** The first object that a restore needs. */
  readonly first: number;
  /** The first segment of the log that a restore needs. */
  readonly segment: number;
}

export interface ObjectHead extends ObjectId {
  /** 16 bytes. */
  readonly storageId: Buffer;
  /** Undefined for a root. */
  readonly before: ShippedObject | undefined;
  /** Milliseconds since 1970; never earlier than that of the object before. */
  readonly timeMs: number;
  /** The last frame that the chain has up to here. */
  readonly end: FramePlace | undefined;
  /** The end of the log after the last file of the object was read. */
  readonly log: FramePlace;
  readonly round: RoundPlace | undefined;
  /** When the storage was last taken over, milliseconds since 1970; 0 for never. */
  readonly takenOverMs: number;
}

export interface SmallFile {
  readonly name: string;
  readonly bytes: Buffer;
}

export type ArchiveRecord =
  | { readonly kind: 'segment'; readonly number: number; readonly id: Buffer; readonly header: Buffer }
  | { readonly kind: 'frame'; readonly block: number; readonly bytes: Buffer }
  | {
      readonly kind: 'base';
      readonly project: string;
      /** Undefined without a catalog. */
      readonly handle: string | undefined;
      readonly inRound: boolean;
    }
  | { readonly kind: 'small files'; readonly project: string; readonly files: readonly SmallFile[] }
  | { readonly kind: 'file'; readonly name: string; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'end' }
  | { readonly kind: 'gone'; readonly project: string }
  | { readonly kind: 'round ends'; readonly bases: number }
  | { readonly kind: 'storage file'; readonly bytes: Buffer };

type RecordKind = ArchiveRecord['kind'];

const KINDS: Readonly<Record<RecordKind, number>> = {
  segment: 1,
  frame: 2,
  base: 3,
  'small files': 4,
  file: 5,
  end: 6,
  gone: 7,
  'round ends': 8,
  'storage file': 9,
};
const KIND_OF = new Map(Object.entries(KINDS).map(([kind, number]) => [number, kind as RecordKind]));

/** The name of an object below the folder of its storage. Names are in the order of `n`. */
export function objectName({ epoch, n }: ObjectId): string {
  return `${String(n).padStart(12, '0')}-${epoch}`;
}

/** The beginning of all keys of a storage. @param storageId 16 bytes. */
export function storagePrefix(storageId: Buffer): string {
  return `${storageId.toString('hex')}/`;
}

export function objectKey(storageId: Buffer, id: ObjectId): string {
  return `${storagePrefix(storageId)}${objectName(id)}`;
}

/** @returns undefined for a name of something else. */
export function parseObjectName(name: string): ObjectId | undefined {
  const [, n, epoch] = /^(\d{12})-([0-9a-f]{32})$/.exec(name) ?? [];
  return n === undefined || epoch === undefined ? undefined : { epoch, n: Number(n) };
}

/** The length of the body that a record takes, with its head. */
function encodeRecord(record: ArchiveRecord): Buffer[] {
  const [fields, content] = fieldsOf(record);
  const head = Buffer.alloc(RECORD_HEAD_BYTES);
  head.writeUInt8(KINDS[record.kind], 0);
  head.writeUInt32BE(fields.length + (content?.length ?? 0), 1);
  return content === undefined ? [head, fields] : [head, fields, content];
}

/** The fields of a record, and what follows them up to its end. */
function fieldsOf(record: ArchiveRecord): [Buffer, Buffer?] {
  switch (record.kind) {
    case 'segment':
      return [Buffer.concat([u64(record.number), record.id]), record.header];
    case 'frame':
      return [u32(record.block), record.bytes];
    case 'base':
      return [
        Buffer.concat([
          name(record.project),
          Buffer.from(record.handle ?? NO_HANDLE, 'hex'),
          Buffer.from([record.inRound ? 1 : 0]),
        ]),
      ];
    case 'small files':
      return [Buffer.concat([name(record.project), ...record.files.flatMap(smallFile)])];
    case 'gone':
      return [name(record.project)];
    case 'file':
      return [Buffer.concat([name(record.name), u64(record.offset)]), record.bytes];
    case 'storage file':
      return [record.bytes];
    case 'round ends':
      return [u32(record.bases)];
    case 'end':
      return [Buffer.alloc(0)];
  }
}

/** Collects the records of an object. */
export class ObjectBuilder {
  #pieces: Buffer[] = [];
  #bytes = 0;

  /** Bytes of its records. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @param record its bytes belong to the builder from now on. */
  add(record: ArchiveRecord): void {
    for (const piece of encodeRecord(record)) {
      this.#pieces.push(piece);
      this.#bytes += piece.length;
    }
  }

  /** The object, and its hash. */
  finish(head: ObjectHead): { readonly bytes: Buffer; readonly hash: Buffer } {
    const bytes = Buffer.concat([encodeHead(head, this.#bytes), ...this.#pieces, Buffer.alloc(HASH_BYTES)]);
    for (const piece of this.#pieces) freeMemory(piece);
    this.#pieces = [];
    const content = bytes.subarray(0, bytes.length - HASH_BYTES);
    const digest = hash('sha256', content, 'buffer');
    digest.copy(bytes, content.length);
    return { bytes, hash: digest };
  }
}

function encodeHead(head: ObjectHead, recordBytes: number): Buffer {
  const bytes = Buffer.alloc(RECORDS);
  bytes.write(MAGIC, 'latin1');
  head.storageId.copy(bytes, 8);
  bytes.write(head.epoch, 24, 'hex');
  writeU64(bytes, head.n, 40);
  bytes.write(head.before?.epoch ?? NO_EPOCH, BEFORE_EPOCH, 'hex');
  writeU64(bytes, head.before?.n ?? 0, BEFORE_EPOCH + EPOCH_BYTES);
  head.before?.hash.copy(bytes, BEFORE_HASH);
  bytes.writeUIntBE(head.timeMs, TIME, 6);
  writeU64(bytes, head.end?.segment ?? 0, END);
  bytes.writeUInt32BE(head.end?.frame ?? 0, END + 8);
  writeU64(bytes, head.log.segment, LOG);
  bytes.writeUInt32BE(head.log.frame, LOG + 8);
  writeU64(bytes, head.round?.endedIn ?? 0, ROUND);
  writeU64(bytes, head.round?.first ?? 0, ROUND + 8);
  writeU64(bytes, head.round?.segment ?? 0, ROUND + 16);
  bytes.writeUIntBE(head.takenOverMs, TAKEN_OVER, 6);
  bytes.writeUInt32BE(recordBytes, LENGTH);
  return bytes;
}

export interface DecodedObject {
  readonly head: ObjectHead;
  /** Its length. */
  readonly bytes: number;
  readonly hash: Buffer;
  /** Its records in order. @throws ArchiveDamaged at one that is not valid. */
  readonly records: () => Generator<ArchiveRecord>;
}

/** Bytes of an object that {@link decodeHead} needs. */
export const HEAD_BYTES = RECORDS;

/**
 * Decodes the head of an object, whose hash is not checked.
 *
 * @throws ArchiveDamaged when it is not the head of that object of that storage.
 */
export function decodeHead(bytes: Buffer, storageId: Buffer, { epoch, n }: ObjectId): ObjectHead {
  const where = objectName({ epoch, n });
  if (bytes.length < RECORDS || bytes.toString('latin1', 0, MAGIC.length) !== MAGIC)
    throw new ArchiveDamaged(`${where} is not an object of an archive of this version`);
  if (!bytes.subarray(8, 24).equals(storageId))
    throw new ArchiveDamaged(`${where} belongs to another storage`);
  if (bytes.toString('hex', 24, 40) !== epoch || readU64(bytes, 40) !== n)
    throw new ArchiveDamaged(`${where} is a copy of another object`);
  const beforeN = readU64(bytes, BEFORE_EPOCH + EPOCH_BYTES);
  const numbers = [beforeN, ...[END, LOG, ROUND, ROUND + 8, ROUND + 16].map((at) => readU64(bytes, at))];
  // Numbers fall from each object to the one before, so no chain is a circle.
  if ((beforeN !== 0 && beforeN !== n - 1) || !numbers.every(Number.isSafeInteger))
    throw new ArchiveDamaged(`${where} has an invalid head`);
  const endSegment = readU64(bytes, END);
  const endedIn = readU64(bytes, ROUND);
  return {
    storageId,
    epoch,
    n,
    before:
      beforeN === 0
        ? undefined
        : {
            epoch: bytes.toString('hex', BEFORE_EPOCH, BEFORE_EPOCH + EPOCH_BYTES),
            n: beforeN,
            hash: Buffer.from(bytes.subarray(BEFORE_HASH, BEFORE_HASH + HASH_BYTES)),
          },
    timeMs: bytes.readUIntBE(TIME, 6),
    end: endSegment === 0 ? undefined : { segment: endSegment, frame: bytes.readUInt32BE(END + 8) },
    log: { segment: readU64(bytes, LOG), frame: bytes.readUInt32BE(LOG + 8) },
    takenOverMs: bytes.readUIntBE(TAKEN_OVER, 6),
    round:
      endedIn === 0
        ? undefined
        : { endedIn, first: readU64(bytes, ROUND + 8), segment: readU64(bytes, ROUND + 16) },
  };
}

/**
 * Decodes an object and checks its hash. Its records are views of `bytes`.
 *
 * @throws ArchiveDamaged
 */
export function decodeObject(bytes: Buffer, storageId: Buffer, id: ObjectId): DecodedObject {
  const head = decodeHead(bytes, storageId, id);
  const end = RECORDS + bytes.readUInt32BE(LENGTH);
  const digest = bytes.subarray(end, end + HASH_BYTES);
  if (bytes.length !== end + HASH_BYTES || !hash('sha256', bytes.subarray(0, end), 'buffer').equals(digest))
    throw new ArchiveDamaged(`${objectName(id)} is incomplete or changed`);
  return {
    head,
    bytes: bytes.length,
    hash: Buffer.from(digest),
    records: () => readRecords(bytes.subarray(RECORDS, end), id),
  };
}

function* readRecords(bytes: Buffer, id: ObjectId): Generator<ArchiveRecord> {
  for (let at = 0; at < bytes.length; ) {
    const bodyStart = at + RECORD_HEAD_BYTES;
    const kind = KIND_OF.get(bytes[at] ?? 0);
    const end = bodyStart + (bodyStart <= bytes.length ? bytes.readUInt32BE(at + 1) : 0);
    const record =
      kind === undefined || bodyStart > bytes.length || end > bytes.length
        ? undefined
        : readRecord(kind, new Fields(bytes.subarray(bodyStart, end)));
    if (record === undefined)
      throw new ArchiveDamaged(`${objectName(id)} has an invalid record at byte ${RECORDS + at}`);
    yield record;
    at = end;
  }
}

/** @returns undefined when its body is not valid. */
function readRecord(kind: RecordKind, fields: Fields): ArchiveRecord | undefined {
  const record = recordOf(kind, fields);
  return fields.isWhole ? record : undefined;
}

function recordOf(kind: RecordKind, fields: Fields): ArchiveRecord | undefined {
  switch (kind) {
    case 'segment':
      return { kind, number: fields.u64(), id: fields.take(EPOCH_BYTES), header: fields.rest() };
    case 'frame':
      return { kind, block: fields.u32(), bytes: fields.rest() };
    case 'base': {
      const project = fields.project();
      const handle = fields.take(NO_HANDLE.length / 2).toString('hex');
      return { kind, project, handle: handle === NO_HANDLE ? undefined : handle, inRound: fields.flag() };
    }
    case 'small files':
      return { kind, project: fields.project(), files: fields.smallFiles() };
    case 'gone':
      return { kind, project: fields.project() };
    case 'file':
      return { kind, name: fields.nameLike(FILE_NAME), offset: fields.u64(), bytes: fields.rest() };
    case 'storage file':
      return { kind, bytes: fields.rest() };
    case 'round ends':
      return { kind, bases: fields.u32() };
    case 'end':
      return { kind };
  }
}

const SMALL_FILE_NAME = /^(?:project\.json|deleted\.json|move\.mark|expires-1|restoring)$/;

/** Reads the fields of a body. After a fault, all further fields are empty. */
class Fields {
  readonly #bytes: Buffer;
  #at = 0;
  #isValid = true;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** Whether every field was valid, and nothing is left. */
  get isWhole(): boolean {
    return this.#isValid && this.#at === this.#bytes.length;
  }

  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) this.#isValid = false;
    if (!this.#isValid) return Buffer.alloc(Math.min(length, EPOCH_BYTES));
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  rest(): Buffer {
    return this.take(this.#bytes.length - this.#at);
  }

  u32(): number {
    return this.take(4).readUInt32BE(0);
  }

  u64(): number {
    const value = readU64(this.take(8), 0);
    this.#isValid &&= Number.isSafeInteger(value);
    return value;
  }

  flag(): boolean {
    const [value] = this.take(1);
    this.#isValid &&= value === 0 || value === 1;
    return value === 1;
  }

  nameLike(form: RegExp): string {
    const [length = 0] = this.take(1);
    const text = this.take(length).toString('latin1');
    this.#isValid &&= form.test(text);
    return text;
  }

  smallFiles(): SmallFile[] {
    const files: SmallFile[] = [];
    while (this.#isValid && this.#at < this.#bytes.length)
      files.push({ name: this.nameLike(SMALL_FILE_NAME), bytes: this.take(this.u32()) });
    return files;
  }

  project(): string {
    const id = this.nameLike(/^/);
    this.#isValid &&= projectIdSchema.safeParse(id).data === id;
    return id;
  }
}

function smallFile({ name: text, bytes }: SmallFile): Buffer[] {
  return [name(text), u32(bytes.length), bytes];
}

function name(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  writeU64(bytes, value, 0);
  return bytes;
}

function writeU64(bytes: Buffer, value: number, at: number): void {
  bytes.writeBigUInt64BE(BigInt(value), at);
}

function readU64(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64BE(at));
}
