import { AppError } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { DocumentContent } from '../crypto/stored-text.ts';
import { isObject, readValue } from '../values/value.ts';
import { placeOfInexact, readForSchema } from './exact-numbers.ts';
import {
  compileSchema,
  requireFewAlternatives,
  requireKeywords,
  requireRunnable,
  type SchemaCheck,
} from './json-schema.ts';

/** The faults that a schema finds in a document; empty for a valid one. */
export type ContentCheck = (content: DocumentContent) => ReturnType<SchemaCheck>;

type Schema = NonNullable<CollectionDefinition['schema']>;

/** Compiles an accepted schema. @throws AppError `invalid_request` when this version no longer accepts it. */
export function checkOf(schema: Schema): ContentCheck {
  return contentCheckOf(compileSchema(schema));
}

export function contentCheckOf(check: SchemaCheck): ContentCheck {
  return ({ bytes }) => check(readForSchema(`{${bytes.toString()}}`));
}

/**
 * Requires every number in the text of a schema to be a double of at most 15 digits. A definition keeps
 * doubles, so any other number would silently change.
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

/** Compiles a new schema. @throws AppError `invalid_request`. */
export function acceptSchema(schema: Schema): SchemaCheck {
  const steps = acceptSchemaSteps(schema);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** {@link acceptSchema}, with one step per compilation. */
export function* acceptSchemaSteps(schema: Schema): Generator<void, SchemaCheck, void> {
  requireKeywords(schema);
  const check = compileSchema(schema);
  yield;
  requireFewAlternatives(schema);
  // Compiled again: the checker for exact numbers, which few documents need, is not kept.
  const other = compileSchema(schema);
  yield;
  requireRunnable(other);
  return check;
}
