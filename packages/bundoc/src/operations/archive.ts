import { hash, type KeyObject } from 'node:crypto';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { aadOf, OpenError, open, SEAL_OVERHEAD_BYTES, seal } from '@bundoc/shared/crypto/aead';
import { BackupDamaged } from '../engine/port/errors.ts';
import { ExactReader } from './exact-reader.ts';

/**
 * The format of a backup (docs/formats/project-backup.md): a clear head, then blocks. A block has a sealed
 * and a clear part, and ends with a hash of itself and everything before it. So anyone can check that a
 * backup is complete and unaltered. Each sealed part is bound to its place, its clear part and that chain. So
 * the key shows whether it is authentic.
 */

const MAGIC = Buffer.from('BUNDOCB1', 'latin1');
/** Of the key of a backup and of the AAD of its blocks. */
export const ARCHIVE_LABEL = 'bundoc/backup/v1';
export const ARCHIVE_ID_BYTES = 16;
const HASH_BYTES = 32;
const BLOCK_HEAD_BYTES = 9;
const HEAD_BYTES_MIN = MAGIC.length + 4 + ARCHIVE_ID_BYTES + 1;
const MORE = 1;
const LAST = 2;
/** Maximum bytes of either part of a block: a block fits a document of any size, or a full page. */
const PART_BYTES_MAX = 67_108_864;

export interface ArchiveHead {
  readonly project: string;
  /** Random, unique to this backup. */
  readonly id: Buffer;
  /** The version of the project's DEK whose subkey seals it. */
  readonly keyVersion: number;
}

/** The content of a block. */
export interface BlockContent {
  readonly isLast: boolean;
  /** The sealed part. */
  readonly text: Buffer;
  /** The clear part. */
  readonly clear: Buffer;
}

/** An encoded block. */
export interface Block {
  readonly isLast: boolean;
  readonly number: number;
  readonly sealed: Buffer;
  readonly clear: Buffer;
  /** The hash of everything before it. */
  readonly before: Buffer;
}

/** Writes one backup, in order. */
export class ArchiveWriter {
  readonly #head: ArchiveHead;
  #number = 0;
  #before: Buffer = Buffer.alloc(0);

  constructor(head: ArchiveHead) {
    this.#head = head;
  }

  /** The start of the backup; call it once. */
  begin(): Buffer {
    const { project, id, keyVersion } = this.#head;
    const name = Buffer.from(project, 'latin1');
    const head = Buffer.alloc(HEAD_BYTES_MIN + name.length);
    MAGIC.copy(head);
    head.writeUInt32BE(keyVersion, MAGIC.length);
    id.copy(head, MAGIC.length + 4);
    head.writeUInt8(name.length, HEAD_BYTES_MIN - 1);
    name.copy(head, HEAD_BYTES_MIN);
    this.#before = hash('sha256', head, 'buffer');
    return Buffer.concat([head, this.#before]);
  }

  /** The next block. @param key the subkey of the head's version for the head's id. */
  block(key: KeyObject, { isLast, text, clear }: BlockContent): Buffer {
    const place = { isLast, number: this.#number++, clear, before: this.#before };
    const sealed = seal(key, text, aadOfBlock(this.#head, place));
    const head = Buffer.alloc(BLOCK_HEAD_BYTES);
    head.writeUInt8(isLast ? LAST : MORE);
    head.writeUInt32BE(sealed.length, 1);
    head.writeUInt32BE(clear.length, 5);
    const bytes = Buffer.concat([head, sealed, clear]);
    this.#before = hashAfter(this.#before, bytes);
    return Buffer.concat([bytes, this.#before]);
  }
}

/** A backup's head, and its blocks in order. */
export interface OpenArchive {
  readonly head: ArchiveHead;
  /** Yields each block once its hash was checked; the last one only if the backup ends after it. */
  readonly blocks: AsyncIterable<Block>;
}

/**
 * Reads a backup without a key.
 *
 * @throws BackupDamaged for anything but a complete, unaltered backup; `blocks` may throw it as well.
 */
export async function readArchive(source: AsyncIterable<Uint8Array>): Promise<OpenArchive> {
  const reader = new ExactReader(source);
  const start = await reader.take(HEAD_BYTES_MIN);
  if (start === undefined || !start.subarray(0, MAGIC.length).equals(MAGIC))
    throw new BackupDamaged('it is no backup of a known format');
  const name = await reader.take(start.readUInt8(HEAD_BYTES_MIN - 1));
  const written = await reader.take(HASH_BYTES);
  if (name === undefined || written === undefined) throw truncated();
  const before = hash('sha256', Buffer.concat([start, name]), 'buffer');
  if (!before.equals(written)) throw new BackupDamaged('the head of the backup was changed');
  const project = projectIdSchema.safeParse(name.toString('latin1'));
  if (!project.success) throw new BackupDamaged('the head of the backup names no project');
  const id = Buffer.from(start.subarray(MAGIC.length + 4, MAGIC.length + 4 + ARCHIVE_ID_BYTES));
  const head = { project: project.data, id, keyVersion: start.readUInt32BE(MAGIC.length) };
  return { head, blocks: blocksOf(reader, before) };
}

async function* blocksOf(reader: ExactReader, hashOfHead: Buffer): AsyncGenerator<Block, void, void> {
  let before = hashOfHead;
  for (let number = 0; ; number++) {
    const head = await reader.take(BLOCK_HEAD_BYTES);
    if (head === undefined) throw truncated();
    const [kind, sealedBytes, clearBytes] = [head.readUInt8(0), head.readUInt32BE(1), head.readUInt32BE(5)];
    const isSound = kind === MORE || kind === LAST;
    if (!isSound || sealedBytes < SEAL_OVERHEAD_BYTES || Math.max(sealedBytes, clearBytes) > PART_BYTES_MAX)
      throw changed(number);
    const sealed = await reader.take(sealedBytes);
    const clear = await reader.take(clearBytes);
    const written = await reader.take(HASH_BYTES);
    if (sealed === undefined || clear === undefined || written === undefined) throw truncated();
    const after = hashAfter(before, Buffer.concat([head, sealed, clear]));
    if (!after.equals(written)) throw changed(number);
    const isLast = kind === LAST;
    if (isLast && !(await reader.isAtEnd()))
      throw new BackupDamaged('there are bytes after the end of the backup');
    yield { isLast, number, sealed, clear, before };
    if (isLast) return;
    before = after;
  }
}

/**
 * Opens the sealed part of a block.
 *
 * @throws BackupDamaged when it, its clear part, or anything before it was made without the key.
 */
export function openBlock(key: KeyObject, head: ArchiveHead, block: Block): Buffer {
  try {
    return open(key, block.sealed, aadOfBlock(head, block));
  } catch (error) {
    if (error instanceof OpenError)
      throw new BackupDamaged(`block ${block.number} of the backup is not authentic`, { cause: error });
    throw error;
  }
}

function aadOfBlock(
  { project, id }: ArchiveHead,
  { number, isLast, clear, before }: Omit<Block, 'sealed'>,
): Buffer {
  return aadOf(
    ARCHIVE_LABEL,
    project,
    id.toString('hex'),
    String(number),
    isLast ? 'last' : 'more',
    before.toString('hex'),
    hash('sha256', clear, 'hex'),
  );
}

function hashAfter(before: Buffer, bytes: Buffer): Buffer {
  return hash('sha256', Buffer.concat([before, bytes]), 'buffer');
}

function truncated(): BackupDamaged {
  return new BackupDamaged('the backup is cut short');
}

function changed(number: number): BackupDamaged {
  return new BackupDamaged(`block ${number} of the backup was changed`);
}
