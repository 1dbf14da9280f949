import type { DocumentContent, DocumentRef } from '../crypto/stored-text.ts';
import type { Precondition } from '../engine/port/port.ts';
import type { Patch } from './patch/read-patch.ts';

/** One valid operation of a batch. */
export type BatchOperation =
  | {
      readonly op: 'put';
      readonly ref: DocumentRef;
      readonly content: DocumentContent;
      readonly precondition: Precondition;
    }
  | {
      readonly op: 'patch';
      readonly ref: DocumentRef;
      readonly patch: Patch;
      readonly precondition: Precondition;
    }
  | { readonly op: 'delete'; readonly ref: DocumentRef; readonly precondition: Precondition };
