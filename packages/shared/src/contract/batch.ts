import { z } from 'zod';
import { collectionNameSchema, documentIdSchema, documentMetadataSchema } from './documents.ts';

/** Operations of one batch. */
export const BATCH_OPERATIONS_MAX = 500;

const place = { collection: collectionNameSchema, id: documentIdSchema };
/** `*`, a revision, or entity tags as `If-Match` has them. */
const ifMatch = z.string().max(1_024).optional();

/** One operation. Documents and patches are taken as the text that they are written in, not as these values. */
export const batchOperationSchema = z.discriminatedUnion('op', [
  z.strictObject({
    op: z.literal('put'),
    ...place,
    document: z.unknown(),
    if_match: ifMatch,
    if_none_match: z.literal('*', 'must be "*"').optional(),
  }),
  z.strictObject({
    op: z.literal('create'),
    ...place,
    id: documentIdSchema.optional(),
    document: z.unknown(),
  }),
  z.strictObject({
    op: z.literal('patch'),
    ...place,
    merge: z.unknown().optional(),
    json: z.unknown().optional(),
    if_match: ifMatch,
  }),
  z.strictObject({ op: z.literal('delete'), ...place, if_match: ifMatch }),
]);
export type BatchOperationInput = z.infer<typeof batchOperationSchema>;

/** The body of `POST /v1/projects/{project}/batch`. */
export const batchSchema = z.strictObject({
  operations: z
    .array(batchOperationSchema)
    .min(1, 'must have an operation')
    .max(BATCH_OPERATIONS_MAX, `must have at most ${BATCH_OPERATIONS_MAX} operations`),
});

/** What an operation led to: the document's metadata, or that it is deleted. */
export const batchResultSchema = z.union([
  documentMetadataSchema.extend({ created: z.boolean() }),
  z.object({ _id: documentIdSchema, _collection: collectionNameSchema, deleted: z.literal(true) }),
]);

/** The answer to a batch: a result for each operation, in their order. */
export const batchAnswerSchema = z.object({ results: z.array(batchResultSchema) });
export type BatchAnswer = z.infer<typeof batchAnswerSchema>;
