import { z } from 'zod';
import { collectionNameSchema, documentIdSchema } from './documents.ts';
import { fieldPathSchema } from './query.ts';

/** Maximum bytes of a definition's JSON. */
export const DEFINITION_BYTES_MAX = 65_536;
/** Indexes of one collection, and fields of one index. */
const INDEXES_MAX = 16;
const INDEX_FIELDS_MAX = 4;
/** Maximum documents that one dry run of a schema checks. */
const SCHEMA_CHECK_DOCUMENTS_MAX = 10_000;
const TEN_YEARS_S = 315_360_000;

export const indexDefinitionSchema = z.strictObject({
  /** By default its fields, joined by `+`. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9_.+-]{1,128}$/, 'must be 1 to 128 of A-Z a-z 0-9 _ . + -')
    .optional(),
  fields: z
    .array(
      fieldPathSchema.refine((field) => !/:(?:asc|desc)$/.test(field), {
        error: 'has no direction: an index serves both',
      }),
    )
    .min(1)
    .max(INDEX_FIELDS_MAX),
  /** No two documents may have the same values in these fields. Documents that lack a field are exempt. */
  unique: z.boolean().default(false),
});

export const ttlSchema = z.strictObject({
  /**
   * A path to a time in UTC, such as `2026-01-31T12:00:00Z`. A document without such a time never expires.
   */
  field: fieldPathSchema,
  /** Seconds after that time. */
  seconds: z.int().min(0).max(TEN_YEARS_S).default(0),
});
export type Ttl = z.infer<typeof ttlSchema>;

/** The body of `PUT …/collections/{c}`. */
export const collectionDefinitionSchema = z.strictObject({
  indexes: z.array(indexDefinitionSchema).max(INDEXES_MAX).default([]),
  /** JSON Schema, draft 2020-12; docs/collections.md lists the accepted keywords. */
  schema: z.record(z.string(), z.unknown()).optional(),
  ttl: ttlSchema.optional(),
});

/** The state of an index. */
export const indexStatusSchema = indexDefinitionSchema.extend({
  /** The given name, or the fields joined by `+`. */
  name: z.string(),
  unique: z.boolean(),
  state: z.enum(['building', 'ready', 'duplicates']),
  /** While it is built: documents that are indexed, and all documents. */
  indexed: z.int().optional(),
  total: z.int().optional(),
  /** Bytes that it takes: of the database, or of memory. */
  bytes: z.int().optional(),
  /**
   * Surplus documents of a unique index: all but one of each set with equal values. The index is not enforced
   * until they are gone and it is defined again.
   */
  duplicates: z.int().optional(),
});

export const collectionSchema = collectionDefinitionSchema.extend({
  indexes: z.array(indexStatusSchema),
  name: collectionNameSchema,
  documents: z.int(),
  /** Sealed bytes. */
  bytes: z.int(),
});

/** The result of a check of existing documents: the schema would now refuse to write `failing` of them. */
export const existingDocumentsSchema = z.object({
  checked: z.int(),
  failing: z.int(),
  /** With a `ttl`: documents whose field has a value that is no UTC time, so they never expire. */
  invalid_times: z.int().optional(),
  complete: z.boolean(),
});
export const definedCollectionSchema = collectionSchema.extend({ existing: existingDocumentsSchema });

/** The body of `POST …/collections/{c}/schema-check`. */
export const schemaCheckRequestSchema = z.strictObject({
  /** As in a definition. */
  schema: z.record(z.string(), z.unknown()),
  /** Maximum documents to check. */
  limit: z.int().min(1).max(SCHEMA_CHECK_DOCUMENTS_MAX).default(1_000),
  /** `next_cursor` of the previous answer for the same schema. */
  cursor: z.string().min(1).max(1_024).optional(),
});

/** A document that the schema refuses, with the first reasons. */
export const failingDocumentSchema = z.object({
  id: documentIdSchema,
  errors: z.array(z.object({ path: z.string(), message: z.string() })),
});

/** How many of the checked documents the schema would refuse. */
export const schemaCheckAnswerSchema = z.object({
  checked: z.int(),
  failing: z.int(),
  /** The first of those that fail. */
  failures: z.array(failingDocumentSchema),
  /** Ids of documents whose stored bytes do not open. */
  unreadable: z.array(z.string()).optional(),
  /** Where to continue; absent when every document was checked. */
  next_cursor: z.string().optional(),
});

/** The answer of `DELETE …/collections/{collection}/documents`. */
export const droppedCollectionSchema = z.object({
  deleted: z.int(),
  /** Whether the request must be repeated. */
  more: z.boolean(),
  /** Documents that stay, since not even their ids open. Then the definition stays, too. */
  unreadable: z.int().optional(),
});

export const listedCollectionSchema = z.object({
  name: collectionNameSchema,
  documents: z.int(),
  bytes: z.int(),
  defined: z.boolean(),
});
export const collectionListSchema = z.object({ collections: z.array(listedCollectionSchema) });

export type CollectionDefinition = z.infer<typeof collectionDefinitionSchema>;
