import { z } from 'zod';
import { asOfSchema, documentIdSchema, documentPageSchema } from './documents.ts';
import { showAs } from './json-schema.ts';

/** Maximum bytes of a query's JSON. */
export const QUERY_BYTES_MAX = 262_144;
/** Documents of one answer. */
const QUERY_LIMIT_MAX = 1_000;
const QUERY_LIMIT_DEFAULT = 100;
/** Maximum fields of one order, and of one grouping. */
const ORDER_FIELDS_MAX = 4;
const GROUP_FIELDS_MAX = 2;
/** Figures of one aggregation. */
const FIGURES_MAX = 20;
/** Decimal places of a percentile's percent. */
const PERCENT_PLACES = 3;

/** A path of members joined by dots. Its parser checks the rest. */
export const fieldPathSchema = z.string().min(1).max(512);

/** The condition: paths with values or operators, and `$and`, `$or`, `$nor`. Its parser checks the rest. */
const whereSchema = z.record(z.string(), z.unknown());

const valueSchema = z.unknown().meta({ description: 'Any JSON value' });
const valuesSchema = z.array(valueSchema).max(1_000);
const typeNameSchema = z.enum(['null', 'boolean', 'number', 'string', 'array', 'object']);

const modNumberSchema = z.int().min(-999_999_999_999_999).max(999_999_999_999_999);

/** The operators of one path, as documents of the API show them (docs/query.md). */
export const operatorsSchema = z
  .strictObject({
    $eq: valueSchema.optional(),
    $ne: valueSchema.optional(),
    $in: valuesSchema.optional(),
    $nin: valuesSchema.optional(),
    $gt: valueSchema.optional(),
    $gte: valueSchema.optional(),
    $lt: valueSchema.optional(),
    $lte: valueSchema.optional(),
    $mod: z.array(modNumberSchema).length(2).optional(),
    $beginsWith: z.string().optional(),
    $contains: z.string().max(250).optional(),
    $endsWith: z.string().optional(),
    $options: z.literal('i').meta({ description: 'Ignores case in the strings beside it' }).optional(),
    $exists: z.boolean().optional(),
    $type: z.union([typeNameSchema, z.array(typeNameSchema).min(1)]).optional(),
    $all: valuesSchema.optional(),
    $size: z.int().min(0).optional(),
    get $elemMatch(): z.ZodType {
      return z.union([operatorsSchema, conditionSchema]).optional();
    },
    get $not(): z.ZodType {
      return operatorsSchema.optional();
    },
  })
  .meta({ description: 'What holds for the values at a path: all of these together', minProperties: 1 });

const conditionsSchema = z.lazy((): z.ZodType => z.array(conditionSchema).min(1).optional());
/** The condition of a query, as documents of the API show it: by path, a value or operators. */
export const conditionSchema: z.ZodType = z
  .object({ $and: conditionsSchema, $or: conditionsSchema, $nor: conditionsSchema })
  .catchall(z.union([operatorsSchema, valueSchema]))
  .meta({
    description:
      'What holds for a document: all members together. A member is a path with a value or operators',
  });
showAs(whereSchema, conditionSchema);

/** The message for a value of another type, by its form. */
const mustBe = (form: string) => ({
  error: ({ code }: { readonly code?: string }) => (code === 'invalid_type' ? `must be ${form}` : undefined),
});
export const orderingSchema = z.strictObject(
  { field: fieldPathSchema, direction: z.enum(['asc', 'desc']).default('asc') },
  mustBe('an object such as {"field":"stars"}'),
);
export const orderBySchema = z
  .array(orderingSchema, mustBe('an array such as [{"field":"stars","direction":"desc"}]'))
  .max(ORDER_FIELDS_MAX);
export type OrderBy = z.infer<typeof orderBySchema>;

/** The body of `POST …/query`. */
export const queryRequestSchema = z.strictObject({
  where: whereSchema.optional(),
  /** Empty: in order of creation. */
  orderBy: orderBySchema.default([]),
  limit: z.int().min(1).max(QUERY_LIMIT_MAX).default(QUERY_LIMIT_DEFAULT),
  /** `next_cursor` of an answer to the same query. */
  cursor: z.string().min(1).max(8_192).optional(),
  /** Paths of members. Only these and the metadata are returned. */
  fields: z.array(fieldPathSchema).min(1).max(50).optional(),
  /** `as_of` of an earlier answer, to show the same state. */
  as_of: asOfSchema.optional(),
  /** Whether the answer explains how it was found. */
  explain: z.boolean().default(false),
});

/** The body of `POST …/count`. */
export const countRequestSchema = z.strictObject({
  where: whereSchema.optional(),
  as_of: asOfSchema.optional(),
  explain: z.boolean().default(false),
});

export const figureSchema = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('count') }),
  z.strictObject({
    op: z.enum(['sum', 'avg', 'min', 'max', 'distinct', 'countDistinct']),
    field: fieldPathSchema,
  }),
  z.strictObject({
    op: z.literal('percentile'),
    field: fieldPathSchema,
    /** 50 is the median. */
    percent: z
      .number()
      .min(0)
      .max(100)
      .refine(
        (percent) => Number(percent.toFixed(PERCENT_PLACES)) === percent,
        `must have at most ${PERCENT_PLACES} decimal places`,
      ),
  }),
]);
export type Figure = z.infer<typeof figureSchema>;

/** The body of `POST …/aggregate`. */
export const aggregateRequestSchema = z.strictObject({
  where: whereSchema.optional(),
  groupBy: z.array(fieldPathSchema).max(GROUP_FIELDS_MAX).default([]),
  /** Figures by their names in the answer. */
  figures: z
    .record(
      z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/, 'must be a name of letters, digits and _'),
      figureSchema,
    )
    .refine((figures) => Object.keys(figures).length > 0, 'must not be empty')
    .refine((figures) => Object.keys(figures).length <= FIGURES_MAX, `must be at most ${FIGURES_MAX}`),
  /** What holds for the figures of a group in the answer: a condition whose paths begin with their names. */
  having: whereSchema.optional(),
  as_of: asOfSchema.optional(),
  explain: z.boolean().default(false),
});

/** How the answer was found. */
export const explanationSchema = z.object({
  /** The index that was used; null when all documents of the collection were scanned. */
  index: z.string().nullable(),
  /** How the documents were put in order. */
  order: z.enum(['creation', 'index', 'sorted']),
  documents_scanned: z.int(),
  /** Sealed bytes. */
  bytes_scanned: z.int(),
  documents_matched: z.int(),
});
export type Explanation = z.infer<typeof explanationSchema>;

/** Members of every answer. */
const foundSchema = z.object({
  as_of: asOfSchema,
  /** Ids of documents that do not open. */
  unreadable: z.array(documentIdSchema).optional(),
  explain: explanationSchema.optional(),
});

export const queryAnswerSchema = documentPageSchema.extend({ explain: explanationSchema.optional() });
export const countAnswerSchema = foundSchema.extend({ count: z.int() });
const namedValuesSchema = z.record(z.string(), z.unknown());
export const groupSchema = z.object({ group: namedValuesSchema, figures: namedValuesSchema });
export const aggregateAnswerSchema = foundSchema.extend({ groups: z.array(groupSchema) });
