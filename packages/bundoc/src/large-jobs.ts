import { hash } from 'node:crypto';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import type { OrderBy } from '@bundoc/shared/contract/query';
import { acceptSchema, type ContentCheck, checkOf } from './collections/definition-schema.ts';
import { readDocumentBody } from './crypto/stored-text.ts';
import { readFields } from './documents/fields.ts';
import type { BatchOperation } from './documents/operation.ts';
import { patchContent } from './documents/patch/patch-content.ts';
import { type Patch, type PatchKind, readPatch } from './documents/patch/read-patch.ts';
import { ifMatchOfBody } from './documents/preconditions.ts';
import { projectText } from './documents/project-text.ts';
import { readBatch } from './documents/read-batch.ts';
import { type IndexKeys, indexKeysOf } from './engine/indexes/index-keys.ts';
import { compileWhere } from './queries/evaluate.ts';
import { type Order, orderOf, sortKey } from './queries/order.ts';
import { type DocumentBudget, refuseWork } from './queries/scan-budget.ts';
import { whereSchema } from './queries/where.ts';
import { operatorsOf } from './queries/where-operators.ts';
import { pathOf, valueAt } from './values/path.ts';
import { readValue, weightOf } from './values/value.ts';
import { writeValue } from './values/write-value.ts';
import { bufferOf, copyOf, type Piece, pieceOf } from './work/large-bytes.ts';

export interface LargeContent {
  readonly piece: Piece;
  readonly hasMembers: boolean;
}

export interface LargeBody {
  readonly content: LargeContent;
  readonly id: string | undefined;
  readonly collection: string | undefined;
  readonly rev: string | undefined;
}

/** An operation of a batch, its document as a piece of the body. */
export type LargeOperation =
  | (Omit<Extract<BatchOperation, { op: 'put' }>, 'content'> & LargeContent)
  | Exclude<BatchOperation, { op: 'put' }>;

/** What is asked of a large document that a query comes to. */
export interface EvaluationInput {
  readonly text: Uint8Array;
  /** Of its creation. */
  readonly position: number;
  /** The JSON of the condition; undefined when it holds already. */
  readonly where: string | undefined;
  readonly orderBy: OrderBy;
  /** Paths whose values are wanted. */
  readonly fields: readonly string[];
  readonly budget: DocumentBudget;
}

export interface Evaluated {
  readonly holds: boolean;
  readonly work: number;
  /** Its place in the order, when the condition holds. */
  readonly key: string;
  /** JSON of the first value at each path. */
  readonly values: readonly (string | undefined)[];
}

/**
 * What is done with documents that are too large for the thread of the event loop. All of it is exactly what
 * is done with small ones.
 */
export const LARGE_JOBS = {
  /** Reads the body of a document. */
  body({ bytes }: { readonly bytes: Uint8Array }): LargeBody {
    const { content, ...rest } = readDocumentBody(bufferOf(bytes));
    return { ...rest, content: { piece: pieceOf(content.bytes, bytes), hasMembers: content.hasMembers } };
  },

  /** SHA-256, in hex. */
  digest({ bytes }: { readonly bytes: Uint8Array }): string {
    return hash('sha256', bytes, 'hex');
  },

  /** Reads the body of a batch. */
  batch(input: { readonly bytes: Uint8Array; readonly documentBytesMax: number }): readonly LargeOperation[] {
    return readBatch(bufferOf(input.bytes), input, ifMatchOfBody).map((operation) => {
      if (operation.op !== 'put') return operation;
      const { content, ...rest } = operation;
      return { ...rest, piece: pieceOf(content.bytes, input.bytes), hasMembers: content.hasMembers };
    });
  },

  /** Reads a patch, to find whether it is sound. */
  readPatch(input: {
    readonly kind: PatchKind;
    readonly bytes: Uint8Array;
    readonly documentBytesMax: number;
  }): void {
    readPatch(input.kind, bufferOf(input.bytes), input.documentBytesMax);
  },

  /** What a sound patch makes of a document's own members. */
  patch(input: {
    readonly own: Uint8Array;
    readonly hasMembers: boolean;
    readonly patch: Patch;
    readonly documentBytesMax: number;
  }): { readonly bytes: Uint8Array; readonly hasMembers: boolean } {
    const own = { bytes: bufferOf(input.own), hasMembers: input.hasMembers };
    const content = patchContent(own, input.patch, input.documentBytesMax);
    return { bytes: copyOf(content.bytes), hasMembers: content.hasMembers };
  },

  /** What a schema refuses of a document's own members. */
  schema({ schema, bytes }: { readonly schema: string; readonly bytes: Uint8Array }): readonly FieldFault[] {
    if (checked?.schema !== schema) checked = { schema, check: checkOf(JSON.parse(schema)) };
    return checked.check({ bytes: bufferOf(bytes), hasMembers: true });
  },

  /** Whether a schema that somebody wants to define is accepted. */
  acceptSchema({ schema }: { readonly schema: string }): void {
    acceptSchema(JSON.parse(schema));
  },

  /** A document's text with the chosen members alone. */
  projection(input: {
    readonly metadata: DocumentMetadata;
    readonly text: Uint8Array;
    readonly fields: readonly string[];
  }): Uint8Array {
    const fields = readFields(input.fields);
    if (typeof fields === 'string') throw new Error('the fields were not checked');
    return copyOf(projectText({ metadata: input.metadata, text: bufferOf(input.text) }, fields.mask));
  },

  /** The keys of a document in indexes on these fields. */
  indexKeys(input: {
    readonly bytes: Uint8Array;
    readonly fields: readonly (readonly string[])[];
  }): readonly IndexKeys[] {
    const value = readValue(bufferOf(input.bytes).toString());
    return input.fields.map((fields) => indexKeysOf(fields.map(pathOf), value));
  },

  /** What a query finds in a document. */
  evaluate(input: EvaluationInput): Evaluated {
    const { holds, operators, order } = planOf(input);
    const value = readValue(bufferOf(input.text).toString());
    const work = weightOf(value) * operators;
    const { documentWorkMax, workMax, advice } = input.budget;
    if (work > documentWorkMax) throw refuseWork(documentWorkMax, workMax, advice);
    if (!holds(value)) return { holds: false, work, key: '', values: [] };
    const values = input.fields.map((field) => {
      const found = valueAt(value, pathOf(field));
      return found === undefined ? undefined : writeValue(found);
    });
    return { holds: true, work, key: sortKey(order, value, input.position), values };
  },
};

export type LargeJobs = typeof LARGE_JOBS;
export type LargeJobName = keyof LargeJobs;
export type LargeInput<N extends LargeJobName> = Parameters<LargeJobs[N]>[0];
export type LargeOutput<N extends LargeJobName> = ReturnType<LargeJobs[N]>;

/** The schema that was used last: a batch has one for many documents. */
let checked: { readonly schema: string; readonly check: ContentCheck } | undefined;

interface Plan {
  readonly where: string | undefined;
  readonly orderBy: string;
  readonly holds: ReturnType<typeof compileWhere>;
  readonly operators: number;
  readonly order: Order;
}

/** The condition that was used last. */
let planned: Plan | undefined;

function planOf({ where, orderBy }: EvaluationInput): Plan {
  const orderText = JSON.stringify(orderBy);
  if (planned?.where === where && planned?.orderBy === orderText) return planned;
  const condition = where === undefined ? undefined : whereSchema.parse(readValue(where));
  planned = {
    ...{ where, orderBy: orderText, order: orderOf(orderBy) },
    holds: condition === undefined ? () => true : compileWhere(condition),
    operators: condition === undefined ? 0 : operatorsOf(condition),
  };
  return planned;
}
