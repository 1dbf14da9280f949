/** The shared memory through which `log-thread.ts` and its thread communicate. */
export interface LogThreadData {
  readonly words: SharedArrayBuffer;
  readonly bytes: SharedArrayBuffer;
}

/** Indexes in that memory: the number of requests, and the fields of the last one. */
export const ASKED = 0;
export const DESCRIPTOR = 1;
export const OFFSET_BLOCKS = 2;
export const BYTES = 3;
export const WORDS = 4;
/** In place of a descriptor: tells the thread to end. */
export const STOP = -1;
/** Unit of offsets, so that one word is enough. */
export const OFFSET_BYTES = 4_096;

/** The thread's answer: undefined when the write is durable. */
export type LogWriteFailure = { readonly code: string | undefined; readonly message: string } | undefined;
