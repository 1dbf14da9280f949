import { type CollectionDefinition, collectionDefinitionSchema } from '@bundoc/shared/contract/collections';
import type { DocumentContent, DocumentRef } from '../crypto/stored-text.ts';
import { ownContentOf } from '../crypto/stored-text.ts';
import type { StoredDocument } from './port.ts';

/**
 * Definitions are documents of a collection of this name, which no path can name. They are sealed, logged,
 * put into snapshots, re-sealed and repaired as all documents are, in the same order of commits.
 */
export const DEFINITIONS = '$definitions';
/** Definitions of one project at most: all of them are kept in memory. */
export const DEFINITIONS_MAX = 1_000;

export interface StoredDefinition {
  readonly definition: CollectionDefinition;
  readonly rev: string;
}

export function definitionRef(collection: string): DocumentRef {
  return { collection: DEFINITIONS, id: collection };
}

/** What is not asked for is left out, so that builds which know nothing of it read the definition as well. */
export function contentOfDefinition(definition: CollectionDefinition): DocumentContent {
  const indexes = definition.indexes.map(({ blind, ...index }) =>
    blind === true ? { ...index, blind } : index,
  );
  return { bytes: Buffer.from(JSON.stringify({ ...definition, indexes }).slice(1, -1)), hasMembers: true };
}

/** @throws ZodError or SyntaxError for a text that is no definition. */
export function readDefinition({ metadata, text }: StoredDocument): StoredDefinition {
  const { bytes } = ownContentOf(text, definitionRef(metadata._id));
  const definition = collectionDefinitionSchema.parse(JSON.parse(`{${bytes.toString()}}`));
  return { definition, rev: metadata._rev };
}
