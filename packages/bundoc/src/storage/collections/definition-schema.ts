import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import { AppError } from '@bundoc/shared/errors';
import { type DocumentContent, ownContentOf } from '../../cipher/stored-text.ts';
import { isObject, readValue } from '../../query/value.ts';
import type { StoredDocument } from '../port.ts';
import { placeOfInexact, readForSchema } from './exact-numbers.ts';
import {
  compileSchema,
  requireFewAlternatives,
  requireKeywords,
  requireRunnable,
  type SchemaCheck,
} from './json-schema.ts';

/** What a schema refuses of the content of a document; empty for one that meets it. */
export type ContentCheck = (content: DocumentContent) => ReturnType<SchemaCheck>;

type Schema = NonNullable<CollectionDefinition['schema']>;

/** Compiles a schema that was accepted. @throws AppError `invalid_request` for one that is not accepted any more. */
export function checkOf(schema: Schema): ContentCheck {
  return contentCheckOf(compileSchema(schema));
}

function contentCheckOf(check: SchemaCheck): ContentCheck {
  return ({ bytes }) => check(readForSchema(`{${bytes.toString()}}`));
}

/** @throws AppError `invalid_request` for a definition whose schema is not accepted. */
export function requireAcceptable(definition: CollectionDefinition): void {
  acceptedCheckOf(definition);
}

/** @throws AppError as {@link requireAcceptable}. */
export function acceptedCheckOf({ schema }: CollectionDefinition): ContentCheck | undefined {
  if (schema === undefined) return undefined;
  return contentCheckOf(acceptSchema(schema));
}

/**
 * Of the text that a schema was read from: each number is a double of at most 15 digits. A definition keeps doubles, so that another number would
 * become one that nobody asked for.
 *
 * @throws AppError `invalid_request`.
 */
export function requireExactNumbers(definition: string): void {
  const value = readValue(definition);
  const place =
    isObject(value) && value['schema'] !== undefined ? placeOfInexact(value['schema']) : undefined;
  if (place === undefined) return;
  const message = 'must be a number of at most 15 significant digits, between 1e-290 and 1e290';
  throw new AppError('invalid_request', { errors: [{ path: ['body.schema', ...place].join('.'), message }] });
}

/** Compiles a schema that somebody wants to define. @throws AppError `invalid_request`. */
export function acceptSchema(schema: Schema): SchemaCheck {
  requireKeywords(schema);
  const check = compileSchema(schema);
  requireFewAlternatives(schema);
  // Another one: what only few documents need is not kept compiled for all of them.
  requireRunnable(compileSchema(schema));
  return check;
}

/**
 * Makes what tells whether a definition's schema would refuse a document. To be made once for many: to compile a schema takes far longer
 * than to check a document.
 *
 * @throws AppError `invalid_request` for a schema that is not accepted.
 */
export function refusalOf(definition: CollectionDefinition): (document: StoredDocument) => boolean {
  const check = definition.schema && checkOf(definition.schema);
  return ({ text, metadata }) => {
    const content = ownContentOf(text, { collection: metadata._collection, id: metadata._id });
    return check !== undefined && check(content).length > 0;
  };
}
