import { hash } from 'node:crypto';
import type { RequestPart } from '@bundoc/shared/http/validate';
import { type DocumentBody, readDocumentBody } from '../crypto/stored-text.ts';
import { defineJobs } from '../work/job.ts';
import { bufferOf, bytesOf, LARGE_BYTES, type Piece, pieceOf, TREE_BYTES_MAX } from '../work/large-bytes.ts';
import type { Work } from '../work/work.ts';
import type { BatchOperation } from './operation.ts';
import { type Patch, type PatchKind, readPatch } from './patch/read-patch.ts';
import { ifMatchOfBody } from './precondition-headers.ts';
import { type BatchLimits, type ReadIfMatch, readBatch } from './read-batch.ts';

// Parses request bodies: small ones in one step, large ones in another thread, with the same errors.
// Afterwards it leaves the work, because the request's next wait uses no processor time.

interface LargeContent {
  readonly piece: Piece;
  readonly hasMembers: boolean;
}

/** An operation of a batch, with its document as a piece of the body. */
type LargeOperation =
  | (Omit<Extract<BatchOperation, { op: 'put' }>, 'content'> & LargeContent)
  | Exclude<BatchOperation, { op: 'put' }>;

interface LargePatchInput extends BatchLimits {
  readonly kind: PatchKind;
  readonly bytes: Uint8Array;
  readonly part: RequestPart;
}

export const JOBS = defineJobs(import.meta.url, {
  body({ bytes }: { readonly bytes: Uint8Array }) {
    const { content, ...rest } = readDocumentBody(bufferOf(bytes));
    return { ...rest, content: { piece: pieceOf(content.bytes, bytes), hasMembers: content.hasMembers } };
  },

  /** SHA-256, in hex. */
  digest({ bytes }: { readonly bytes: Uint8Array }): string {
    return hash('sha256', bytes, 'hex');
  },

  batch(input: { readonly bytes: Uint8Array } & BatchLimits): readonly LargeOperation[] {
    return readBatch(bufferOf(input.bytes), input, ifMatchOfBody).map((operation) => {
      if (operation.op !== 'put') return operation;
      const { content, ...rest } = operation;
      return { ...rest, piece: pieceOf(content.bytes, input.bytes), hasMembers: content.hasMembers };
    });
  },

  /** Refuses an invalid patch. */
  patch({ kind, bytes, documentBytesMax, part }: LargePatchInput): void {
    readPatch(kind, bufferOf(bytes), documentBytesMax, part);
  },
});

/** Bytes of a body up to which it is read without waiting for a turn, which would take longer. */
const SMALL_BODY_BYTES = 8_192;
/** Bytes of a body up to which it is read in one step: one with many short names takes some milliseconds. */
const BODY_AT_ONCE_MAX = 131_072;

/** {@link readDocumentBody}. Synchronous for a small one. */
export function readBodyInTurns(bytes: Buffer, work: Work): DocumentBody | Promise<DocumentBody> {
  if (bytes.length <= SMALL_BODY_BYTES) return readDocumentBody(bytes);
  return bytes.length <= BODY_AT_ONCE_MAX ? readInTurn(bytes, work) : readLargeBody(bytes, work);
}

async function readInTurn(bytes: Buffer, work: Work): Promise<DocumentBody> {
  await work.pause();
  try {
    return readDocumentBody(bytes);
  } finally {
    work.leave();
  }
}

async function readLargeBody(bytes: Buffer, work: Work): Promise<DocumentBody> {
  const { content, ...rest } = await work.elsewhere(JOBS.body, { bytes });
  work.leave();
  return { ...rest, content: contentOf(content, bytes) };
}

/** Bytes of a batch up to which it is read in one step: each operation adds some time. */
const BATCH_AT_ONCE_MAX = 65_536;

/** {@link readBatch}. */
export async function readBatchInTurns(
  bytes: Buffer,
  { documentBytesMax }: BatchLimits,
  readIfMatch: ReadIfMatch,
  work: Work,
): Promise<readonly BatchOperation[]> {
  if (bytes.length <= BATCH_AT_ONCE_MAX) {
    await work.pause();
    const operations = readBatch(bytes, { documentBytesMax }, readIfMatch);
    work.leave();
    return operations;
  }
  const operations = await work.elsewhere(JOBS.batch, { bytes, documentBytesMax });
  const whole = operations.map((operation) => {
    if (operation.op !== 'put') return operation;
    const { piece, hasMembers, ...rest } = operation;
    return { ...rest, content: contentOf({ piece, hasMembers }, bytes) };
  });
  work.leave();
  return whole;
}

/**
 * {@link readPatch}. A large patch is only validated here, and parsed again where it is applied.
 *
 * @param part the part of the request that is the patch.
 */
export async function readPatchInTurns(
  kind: PatchKind,
  bytes: Buffer,
  documentBytesMax: number,
  work: Work,
  part: RequestPart = 'body',
): Promise<Patch> {
  if (bytes.length <= TREE_BYTES_MAX) {
    await work.pause();
    const patch = readPatch(kind, bytes, documentBytesMax, part);
    work.leave();
    return patch;
  }
  await work.elsewhere(JOBS.patch, { kind, bytes, documentBytesMax, part });
  work.leave();
  return { kind: 'large', of: kind, bytes, part };
}

/** Returns a small body unchanged, and the digest of a large one. */
export async function digestInTurns(bytes: Buffer, work: Work): Promise<Buffer | string> {
  if (bytes.length <= LARGE_BYTES) return bytes;
  const digest = await work.elsewhere(JOBS.digest, { bytes });
  work.leave();
  return digest;
}

function contentOf({ piece, hasMembers }: LargeContent, whole: Buffer) {
  return { bytes: bytesOf(piece, whole), hasMembers };
}
