/** What `log-thread.ts` and the thread itself say to each other, by memory that both see. */
export interface LogThreadData {
  readonly words: SharedArrayBuffer;
  readonly bytes: SharedArrayBuffer;
}

/** Words of that memory: how many requests were made, and the last of them. */
export const ASKED = 0;
export const DESCRIPTOR = 1;
export const OFFSET_BLOCKS = 2;
export const BYTES = 3;
export const WORDS = 4;
/** In place of a descriptor: the thread ends. */
export const STOP = -1;
/** Unit of offsets, so that one word holds them. */
export const OFFSET_BYTES = 4_096;

/** What the thread answers: undefined when the write is durable. */
export type LogWriteFailure = { readonly code: string | undefined; readonly message: string } | undefined;
