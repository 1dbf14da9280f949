/**
 * The thread for large documents evaluates queries on documents above this size, and hashes bodies above it.
 * Other work has its own bounds: those of bodies are in `large-content.ts`.
 */
export const LARGE_BYTES = 262_144;
/**
 * Documents and patches up to this size are parsed into a tree on the event loop's thread. This takes a few
 * milliseconds, because they have few values.
 */
export const TREE_BYTES_MAX = 65_536;

/** Bytes: a copy, or a range of the input. */
export type Piece = Uint8Array | { readonly start: number; readonly end: number };

export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Represents a part of the input as its range, anything else as a copy. */
export function pieceOf(part: Buffer, whole: Uint8Array): Piece {
  if (part.buffer !== whole.buffer) return copyOf(part);
  const start = part.byteOffset - whole.byteOffset;
  return { start, end: start + part.length };
}

/** The bytes of a piece. */
export function bytesOf(piece: Piece, whole: Buffer): Buffer {
  return piece instanceof Uint8Array ? bufferOf(piece) : whole.subarray(piece.start, piece.end);
}

/** A copy with memory of its own, which can be transferred, kept or freed without any other bytes. */
export function copyOf(bytes: Uint8Array): Buffer<ArrayBuffer> {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

/** The bytes of documents together. */
export function textBytes(documents: readonly { readonly text: Uint8Array }[]): number {
  return documents.reduce((sum, { text }) => sum + text.length, 0);
}
