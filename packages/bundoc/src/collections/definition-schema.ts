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

/** What a schema refuses of the content of a document; empty for one that meets it. */
export type ContentCheck = (content: DocumentContent) => ReturnType<SchemaCheck>;

type Schema = NonNullable<CollectionDefinition['schema']>;

/**
 * Compiles a schema that was accepted. @throws AppError `invalid_request` for one that is not accepted any
 * more.
 */
export function checkOf(schema: Schema): ContentCheck {
  return contentCheckOf(compileSchema(schema));
}

export function contentCheckOf(check: SchemaCheck): ContentCheck {
  return ({ bytes }) => check(readForSchema(`{${bytes.toString()}}`));
}

/**
 * Of the text that a schema was read from: each number is a double of at most 15 digits. A definition keeps
 * doubles, so that another number would become one that nobody asked for.
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
  const steps = acceptSchemaSteps(schema);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** {@link acceptSchema}, with a step for each compilation. */
export function* acceptSchemaSteps(schema: Schema): Generator<void, SchemaCheck, void> {
  requireKeywords(schema);
  const check = compileSchema(schema);
  yield;
  requireFewAlternatives(schema);
  // Another one: what only few documents need is not kept compiled for all of them.
  const other = compileSchema(schema);
  yield;
  requireRunnable(other);
  return check;
}
