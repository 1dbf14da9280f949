import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import { readJson } from '@bundoc/shared/json/read';
import { type DocumentContent, ownContentOf } from '../../cipher/stored-text.ts';
import type { StoredDocument } from '../port.ts';
import { compileSchema, requireFewAlternatives, requireRunnable, type SchemaCheck } from './json-schema.ts';

/** What a schema refuses of the content of a document; empty for one that meets it. */
export type ContentCheck = (content: DocumentContent) => ReturnType<SchemaCheck>;

type Schema = NonNullable<CollectionDefinition['schema']>;

/** Compiles a schema that was accepted. @throws AppError `invalid_request` for one that is not accepted any more. */
export function checkOf(schema: Schema): ContentCheck {
  return contentCheckOf(compileSchema(schema));
}

function contentCheckOf(check: SchemaCheck): ContentCheck {
  return (content) => check(parsed(content));
}

/** @throws AppError `invalid_request` for a definition whose schema is not accepted. */
export function requireAcceptable(definition: CollectionDefinition): void {
  acceptedCheckOf(definition);
}

/** @throws AppError as {@link requireAcceptable}. */
export function acceptedCheckOf({ schema }: CollectionDefinition): ContentCheck | undefined {
  if (schema === undefined) return undefined;
  const check = compileSchema(schema);
  requireFewAlternatives(schema);
  requireRunnable(check);
  return contentCheckOf(check);
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

/** V8 may misread escaped names, see `json/read.ts` of shared. */
function parsed({ bytes }: DocumentContent): unknown {
  const text = `{${bytes.toString()}}`;
  return text.includes('\\') ? readJson(text) : JSON.parse(text);
}
