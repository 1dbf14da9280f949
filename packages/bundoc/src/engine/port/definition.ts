import {
  type CollectionDefinition,
  collectionDefinitionSchema,
  indexDefinitionSchema,
} from '@bundoc/shared/contract/collections';
import { z } from 'zod';
import type { DocumentContent, DocumentRef } from '../../crypto/stored-text.ts';
import { ownContentOf } from '../../crypto/stored-text.ts';
import type { StoredDocument } from './port.ts';

/**
 * The collection of the definitions; no path can name it. Definitions are documents: they are sealed, logged,
 * put into snapshots, re-sealed and repaired like all others, in the same order of commits.
 */
export const DEFINITIONS = '$definitions';
/** Maximum definitions of one project: all of them are kept in memory. */
export const DEFINITIONS_MAX = 1_000;

export interface StoredDefinition {
  readonly definition: CollectionDefinition;
  readonly rev: string;
}

export function definitionRef(collection: string): DocumentRef {
  return { collection: DEFINITIONS, id: collection };
}

export function contentOfDefinition(definition: CollectionDefinition): DocumentContent {
  return { bytes: Buffer.from(JSON.stringify(definition).slice(1, -1)), hasMembers: true };
}

/** Earlier builds stored `blind` of an index, which means nothing now. */
const storedSchema = collectionDefinitionSchema.extend({
  indexes: z.array(indexDefinitionSchema.strip()).default([]),
});

/** @throws ZodError or SyntaxError for a text that is not a definition. */
export function readDefinition({ metadata, text }: StoredDocument): StoredDefinition {
  const { bytes } = ownContentOf(text, definitionRef(metadata._id));
  const definition = storedSchema.parse(JSON.parse(`{${bytes.toString()}}`));
  return { definition, rev: metadata._rev };
}
