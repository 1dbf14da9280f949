import { z } from 'zod';
import { collectionNameSchema, documentIdSchema } from './documents.ts';
import { fieldPathSchema } from './query.ts';

/** Bytes of a definition's JSON at most. */
export const DEFINITION_BYTES_MAX = 65_536;
/** Indexes of one collection, and fields of one index. */
const INDEXES_MAX = 16;
const INDEX_FIELDS_MAX = 4;
/** Documents that one dry run of a schema looks at. */
const SCHEMA_CHECK_DOCUMENTS_MAX = 10_000;
const TEN_YEARS_S = 315_360_000;

export const indexDefinitionSchema = z.strictObject({
  /** Its fields joined by `+` when absent. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9_.+-]{1,128}$/, 'must be 1 to 128 of A-Z a-z 0-9 _ . + -')
    .optional(),
  fields: z.array(fieldPathSchema).min(1).max(INDEX_FIELDS_MAX),
  /** No two documents have the same values in these fields, unless one lacks a field. */
  unique: z.boolean().default(false),
  /**
   * On PostgreSQL: keep a token of each document's values in the database, by which equal ones are found;
   * anyone who sees the database sees which are equal. Indexes that are unique have them in any case. Files
   * need none.
   */
  blind: z.boolean().optional(),
});

export const ttlSchema = z.strictObject({
  /** A time in UTC, as `2026-01-31T12:00:00Z`; a document where it is none never expires. */
  field: fieldPathSchema,
  /** Seconds after that time. */
  seconds: z.int().min(0).max(TEN_YEARS_S).default(0),
});
export type Ttl = z.infer<typeof ttlSchema>;

/** The body of `PUT …/collections/{c}`. */
export const collectionDefinitionSchema = z.strictObject({
  indexes: z.array(indexDefinitionSchema).max(INDEXES_MAX).default([]),
  /** JSON Schema, draft 2020-12; what of it is accepted is in docs/collections.md. */
  schema: z.record(z.string(), z.unknown()).optional(),
  ttl: ttlSchema.optional(),
});

/** An index as it is: `none` where the engine has none of the kind, and its queries are scans. */
export const indexStatusSchema = indexDefinitionSchema.extend({
  /** As it was given, or the fields joined by `+`. */
  name: z.string(),
  unique: z.boolean(),
  state: z.enum(['building', 'ready', 'duplicates', 'none']),
  /** While it is built: documents that are in it, and that there are. */
  indexed: z.int().optional(),
  total: z.int().optional(),
  /**
   * Documents of a unique index too many, all but one of each that have equal values: it keeps nothing apart
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

/**
 * What a look at some of the documents that are there has found: a write of `failing` of them would be
 * refused now.
 */
export const existingDocumentsSchema = z.object({
  checked: z.int(),
  failing: z.int(),
  complete: z.boolean(),
});
export const definedCollectionSchema = collectionSchema.extend({ existing: existingDocumentsSchema });

/** The body of `POST …/collections/{c}/schema-check`. */
export const schemaCheckRequestSchema = z.strictObject({
  /** As in a definition. */
  schema: z.record(z.string(), z.unknown()),
  /** Documents that are looked at, at most. */
  limit: z.int().min(1).max(SCHEMA_CHECK_DOCUMENTS_MAX).default(1_000),
  /** `next_cursor` of the answer before, to the same schema. */
  cursor: z.string().min(1).max(1_024).optional(),
});

/** A document that a write would be refused for, with the first reasons. */
export const failingDocumentSchema = z.object({
  id: documentIdSchema,
  errors: z.array(z.object({ path: z.string(), message: z.string() })),
});

/** How many of the documents that were looked at the schema would refuse. */
export const schemaCheckAnswerSchema = z.object({
  checked: z.int(),
  failing: z.int(),
  /** The first of those that fail. */
  failures: z.array(failingDocumentSchema),
  /** Ids of documents whose stored bytes do not open. */
  unreadable: z.array(z.string()).optional(),
  /** Where to continue; absent when every document was looked at. */
  next_cursor: z.string().optional(),
});

export const listedCollectionSchema = z.object({
  name: collectionNameSchema,
  documents: z.int(),
  bytes: z.int(),
  defined: z.boolean(),
});
export const collectionListSchema = z.object({ collections: z.array(listedCollectionSchema) });

export type CollectionDefinition = z.infer<typeof collectionDefinitionSchema>;
