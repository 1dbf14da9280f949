import { z } from 'zod';
import {
  collectionNameSchema,
  documentBodySchema,
  documentIdSchema,
  documentMetadataSchema,
} from './documents.ts';
import { named, showAs } from './json-schema.ts';

/** Operations of one batch. */
const BATCH_OPERATIONS_MAX = 500;

const place = { collection: collectionNameSchema, id: documentIdSchema };
/** `*`, a revision, or entity tags as in `If-Match`. */
const ifMatch = z.string().max(1_024).optional();

/**
 * Documents and patches are read from their original text, not from these values. The reader of that text
 * checks them.
 */
const documentSchema = showAs(z.unknown(), documentBodySchema);
const mergeSchema = showAs(z.unknown(), named('MergePatch'));
const jsonSchema = showAs(z.unknown(), named('JsonPatch'));
const updateSchema = showAs(z.unknown(), named('Update'));

export const putOperationSchema = z.strictObject({
  op: z.literal('put'),
  ...place,
  document: documentSchema,
  if_match: ifMatch,
  if_none_match: z.literal('*', 'must be "*"').optional(),
});
export const createOperationSchema = z.strictObject({
  op: z.literal('create'),
  ...place,
  id: documentIdSchema.optional(),
  document: documentSchema,
});
export const patchOperationSchema = z
  .strictObject({
    op: z.literal('patch'),
    ...place,
    merge: mergeSchema.optional(),
    json: jsonSchema.optional(),
    update: updateSchema.optional(),
    if_match: ifMatch,
  })
  .meta({ description: 'Changes a document by `merge`, by `json` or by `update`: one of the three' });
export const deleteOperationSchema = z.strictObject({ op: z.literal('delete'), ...place, if_match: ifMatch });

/** One operation. */
export const batchOperationSchema = z.discriminatedUnion('op', [
  putOperationSchema,
  createOperationSchema,
  patchOperationSchema,
  deleteOperationSchema,
]);
export type BatchOperationInput = z.infer<typeof batchOperationSchema>;

/** The body of `POST /v1/projects/{project}/batch`. */
export const batchSchema = z.strictObject({
  operations: z
    .array(batchOperationSchema)
    .min(1, 'must have an operation')
    .max(BATCH_OPERATIONS_MAX, `must have at most ${BATCH_OPERATIONS_MAX} operations`),
});

/** The result of an operation: the document's metadata, or its deletion. */
export const writtenResultSchema = documentMetadataSchema.extend({ created: z.boolean() });
export const deletedResultSchema = z.object({
  _id: documentIdSchema,
  _collection: collectionNameSchema,
  deleted: z.literal(true),
});
export const batchResultSchema = z.union([writtenResultSchema, deletedResultSchema]);

/** The answer to a batch: a result for each operation, in their order. */
export const batchAnswerSchema = z.object({ results: z.array(batchResultSchema) });
export type BatchAnswer = z.infer<typeof batchAnswerSchema>;
