import type { Collection, WriteOptions } from '@bundoc/client/collection';
import { JsonText, type Metadata, withoutMetadata } from '@bundoc/client/document';
import { hasCode } from '@bundoc/client/error';
import type { Environment } from '@bundoc/shared/runtime/config';
import { parseCollectionName, parseProjectId } from './names.ts';
import { rowWriter, writeText } from './output.ts';
import { readText } from './read-text.ts';
import { type ServiceOptions, serviceClient, stopSignal } from './service-client.ts';

export interface DataOptions extends ServiceOptions {
  readonly json?: true;
}

export interface WriteCommandOptions extends DataOptions {
  readonly ifMatch?: string;
  readonly ifNoneMatch?: true;
}

/** The address of a document, as typed. */
export interface DocumentPlace {
  readonly project: string;
  readonly collection: string;
  readonly id: string;
}

/** A collection of a running service. */
async function collectionAt(
  environment: Environment,
  place: Pick<DocumentPlace, 'project' | 'collection'>,
  options: ServiceOptions,
): Promise<Collection> {
  const bundoc = await serviceClient(environment, options);
  return bundoc.project(parseProjectId(place.project)).collection(parseCollectionName(place.collection));
}

/** Prints a stored document unchanged. @returns false when there is none. */
export async function getCommand(
  environment: Environment,
  place: DocumentPlace,
  options: DataOptions & { readonly content?: true },
): Promise<boolean> {
  const collection = await collectionAt(environment, place, options);
  const document = await collection.get(place.id, { signal: stopSignal() });
  if (document === undefined) {
    console.error(`bundoc: there is no document ${JSON.stringify(place.id)} in ${collection.name}`);
    return false;
  }
  await writeText(options.content ? withoutMetadata(document.text) : document.text);
  return true;
}

/** Creates or replaces a document with the text of a file, byte for byte. */
export async function putCommand(
  environment: Environment,
  place: DocumentPlace,
  file: string,
  options: WriteCommandOptions,
): Promise<void> {
  const collection = await collectionAt(environment, place, options);
  const content = new JsonText(await readText(file));
  const conditions = {
    ifMatch: options.ifMatch,
    ...(options.ifNoneMatch ? { ifNoneMatch: '*' as const } : {}),
  };
  await printMetadata(
    await collection.put(place.id, content, { ...conditions, signal: stopSignal() }),
    options,
  );
}

/** Creates a document under the `_id` of its text, or under a new one. */
export async function createCommand(
  environment: Environment,
  place: Pick<DocumentPlace, 'project' | 'collection'>,
  file: string,
  options: DataOptions,
): Promise<void> {
  const collection = await collectionAt(environment, place, options);
  const content = new JsonText(await readText(file));
  await printMetadata(await collection.create(content, { signal: stopSignal() }), options);
}

/** Patches a document with the text of a merge patch (an object) or a JSON Patch (an array). */
export async function patchCommand(
  environment: Environment,
  place: DocumentPlace,
  file: string,
  options: WriteCommandOptions,
): Promise<void> {
  const collection = await collectionAt(environment, place, options);
  const patch = new JsonText(await readText(file));
  const write = { ifMatch: options.ifMatch, signal: stopSignal() };
  await printMetadata(await collection.patch(place.id, patch, write), options);
}

/** @returns false when there is no document. */
export async function deleteCommand(
  environment: Environment,
  place: DocumentPlace,
  options: WriteCommandOptions,
): Promise<boolean> {
  const collection = await collectionAt(environment, place, options);
  const write: WriteOptions & { ifMatch: string | undefined } = {
    ifMatch: options.ifMatch,
    signal: stopSignal(),
  };
  try {
    await collection.delete(place.id, write);
    return true;
  } catch (error) {
    if (!hasCode(error, 'document_not_found', 'project_not_found')) throw error;
    console.error(`bundoc: there is no document ${JSON.stringify(place.id)} in ${collection.name}`);
    return false;
  }
}

/** Prints the metadata that a write returned. */
async function printMetadata(metadata: Metadata, options: DataOptions): Promise<void> {
  const write = rowWriter<Metadata>(
    {
      columns: [
        { head: 'id', cell: ({ _id: id }) => id },
        { head: 'revision', cell: ({ _rev: rev }) => rev },
        { head: 'updated', cell: ({ _updated: updated }) => updated },
      ],
      json: (row) => JSON.stringify(row),
    },
    options,
  );
  await write([metadata]);
}
