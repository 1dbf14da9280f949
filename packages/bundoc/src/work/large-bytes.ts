/**
 * Bytes of a document, or of a body, from which on it is parsed, checked and evaluated in a thread of its
 * own.
 */
export const LARGE_BYTES = 262_144;
/**
 * Bytes of a document, or of a patch, up to which it is made a tree on the thread of the event loop: it has
 * so few values that this takes a few milliseconds.
 */
export const TREE_BYTES_MAX = 65_536;

/** Bytes that are a copy, or lie in what was given. */
export type Piece = Uint8Array | { readonly start: number; readonly end: number };

export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A part of what was given as its place in it, else as a copy. */
export function pieceOf(part: Buffer, whole: Uint8Array): Piece {
  if (part.buffer !== whole.buffer) return copyOf(part);
  const start = part.byteOffset - whole.byteOffset;
  return { start, end: start + part.length };
}

/** The bytes that a piece stands for. */
export function bytesOf(piece: Piece, whole: Buffer): Buffer {
  return piece instanceof Uint8Array ? bufferOf(piece) : whole.subarray(piece.start, piece.end);
}

/** By itself, so that it can be given away without a copy, and nothing else with it. */
export function copyOf(bytes: Buffer): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes);
}
