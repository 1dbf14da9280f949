import { z } from 'zod';

/** Project ids are converted to lower case before any other use. */
export const projectIdSchema = z
  .string()
  // Checked before the conversion: the Kelvin sign (U+212A) would otherwise become a plain "k".
  // `abort`: otherwise a union would answer with this fault alone, and not name its other options.
  .regex(/^[A-Za-z0-9][A-Za-z0-9-]{0,62}$/, {
    error: 'must be 1 to 63 of a-z 0-9 -, starting with a letter or digit',
    abort: true,
  })
  .toLowerCase();

export const collectionNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,128}$/, 'must be 1 to 128 of A-Z a-z 0-9 _ -');

const DOCUMENT_ID_BYTES_MAX = 512;

/** Most ids: printable ASCII without `/`, no longer than any id may be. */
const PLAIN_ID = /^[!-.0-~]{1,512}$/;

/** Why a text is not a document id; undefined when it is one. */
function faultOfId(id: string): string | undefined {
  if (id === '.' || id === '..') return 'must not be "." or ".."';
  if (PLAIN_ID.test(id)) return undefined;
  if (!id.isWellFormed()) return 'must be well-formed Unicode';
  if (Buffer.byteLength(id) > DOCUMENT_ID_BYTES_MAX) return 'must have at most 512 bytes of UTF-8';
  if (/[\p{Cc}/]/u.test(id)) return 'must not hold control characters or "/"';
  return undefined;
}

/**
 * A document id: 1 to 512 bytes of UTF-8, no control characters, no `/`, not `.` or `..` (proxies rewrite
 * those).
 */
export const documentIdSchema = z
  .string()
  .min(1, 'must not be empty')
  .superRefine((id, context) => {
    const message = faultOfId(id);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  })
  // An id has no more characters than bytes.
  .meta({ maxLength: DOCUMENT_ID_BYTES_MAX });

/** The metadata members at the start of every stored document, in this order. */
export const METADATA_MEMBERS = ['_id', '_collection', '_rev', '_created', '_updated'] as const;

/** The answer to a write, and the first members of every document. */
export const documentMetadataSchema = z.object({
  _id: documentIdSchema,
  _collection: collectionNameSchema,
  _rev: z.string(),
  _created: z.iso.datetime(),
  _updated: z.iso.datetime(),
});
export type DocumentMetadata = z.infer<typeof documentMetadataSchema>;

/**
 * The body of a write: any JSON object. `_id` and `_collection` must match the path. `_rev` is an `If-Match`
 * on a replacement.
 */
export const documentBodySchema = z.looseObject({
  _id: documentIdSchema.optional(),
  _collection: collectionNameSchema.optional(),
  _rev: z.string().optional(),
});

/** A document: the metadata, then the members that were written. */
export const documentSchema = z.looseObject(documentMetadataSchema.shape);

/** The position of the last commit that an answer shows, and the state that a request asks for. */
export const asOfSchema = z.int().min(0);

/**
 * A page of a collection, in order of creation. `unreadable` lists the ids of documents whose stored bytes do
 * not open.
 */
export const documentPageSchema = z.object({
  documents: z.array(documentSchema),
  unreadable: z.array(documentIdSchema).optional(),
  /** Documents of the collection, if the request asked for `total`. */
  total: z.int().optional(),
  next_cursor: z.string().optional(),
  as_of: asOfSchema,
});

/** A change, and with `include=doc` the present document; `unreadable` when its stored bytes do not open. */
export const changeSchema = z.object({
  _collection: collectionNameSchema,
  _id: documentIdSchema,
  _rev: z.string(),
  deleted: z.literal(true).optional(),
  unreadable: z.literal(true).optional(),
  doc: documentSchema.optional(),
});

/**
 * A page of changes, each document once, at its latest change. `since` is where to resume. With `more`, the
 * next page may have changes already.
 */
export const changePageSchema = z.object({
  changes: z.array(changeSchema),
  since: z.string(),
  more: z.literal(true).optional(),
});
