import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import { readJson } from '@bundoc/shared/json/read';
import { type DocumentContent, ownContentOf } from '../../cipher/stored-text.ts';
import type { StoredDocument } from '../port.ts';
import { compileSchema, requireFewAlternatives, requireRunnable, type SchemaCheck } from './json-schema.ts';

/** What a schema refuses of the content of a document; empty for one that meets it. */
export type ContentCheck = (content: DocumentContent) => ReturnType<SchemaCheck>;

/** The check of a definition's schema, undefined without one; compiled when it is first asked for. @throws what compiling throws. */
export function lazyCheckOf(definition: CollectionDefinition): () => ContentCheck | undefined {
  let check: { readonly compiled: ContentCheck | undefined } | undefined;
  return () => {
    check ??= { compiled: checkOf(definition) };
    return check.compiled;
  };
}

function checkOf({ schema }: CollectionDefinition): ContentCheck | undefined {
  return schema && contentCheckOf(compileSchema(schema));
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
 * Makes what counts how many of some documents a definition's schema would refuse. To be made once for many: to compile a schema takes far longer
 * than to check a document.
 *
 * @throws AppError `invalid_request` for a schema that is not accepted.
 */
export function refusedCounter(
  definition: CollectionDefinition,
): (documents: readonly StoredDocument[]) => number {
  const check = checkOf(definition);
  if (check === undefined) return () => 0;
  return (documents) =>
    documents.filter(({ text, metadata }) => {
      const content = ownContentOf(text, { collection: metadata._collection, id: metadata._id });
      return check(content).length > 0;
    }).length;
}

/** V8 may misread escaped names, see `json/read.ts` of shared. */
function parsed({ bytes }: DocumentContent): unknown {
  const text = `{${bytes.toString()}}`;
  return text.includes('\\') ? readJson(text) : JSON.parse(text);
}
