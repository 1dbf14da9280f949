import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import {
  arrayOf,
  type JsonArray,
  type JsonNode,
  type JsonObject,
  objectOf,
  parseTree,
  treeText,
} from '@bundoc/shared/json/tree';
import { freeMemory } from '@bundoc/shared/runtime/free-memory';
import { composeStoredText, ownContentOf } from '../crypto/stored-text.ts';
import type { StoredDocument } from '../engine/port.ts';
import { defineJobs } from '../work/job.ts';
import { bufferOf, copyOf, TREE_BYTES_MAX } from '../work/large-bytes.ts';
import type { Work } from '../work/work.ts';
import { type FieldMask, type Fields, readFields } from './fields.ts';

/** @public The thread for large documents finds it by its name. */
export const JOBS = defineJobs(import.meta.url, {
  projection(input: {
    readonly metadata: DocumentMetadata;
    readonly text: Uint8Array;
    readonly fields: readonly string[];
  }): Uint8Array {
    const fields = readFields(input.fields);
    if (typeof fields === 'string') throw new Error('the fields were not checked');
    return copyOf(projectText({ metadata: input.metadata, text: bufferOf(input.text) }, fields.mask));
  },
});

/**
 * {@link projectText} of each document, with others served in between; of large documents in another thread.
 * Frees the documents' texts.
 */
export async function projectInTurns(
  documents: readonly StoredDocument[],
  { mask, canonical }: Fields,
  work: Work,
): Promise<Buffer[]> {
  const texts: Buffer[] = [];
  for (const { metadata, text } of documents) {
    const turn = work.pause();
    if (turn !== undefined) await turn;
    texts.push(
      text.length > TREE_BYTES_MAX
        ? bufferOf(await work.elsewhere(JOBS.projection, { metadata, text, fields: canonical }))
        : projectText({ metadata, text }, mask),
    );
    freeMemory(text);
  }
  work.leave();
  return texts;
}

/**
 * A document's text with its metadata and the chosen members alone, each as it is written.
 *
 * A path goes into every object of an array; what of an array is no object, or has nothing of what was
 * chosen, is left out of it.
 */
export function projectText({ metadata, text }: StoredDocument, mask: FieldMask): Buffer {
  const own = ownContentOf(text, { collection: metadata._collection, id: metadata._id });
  const tree = parseTree(`{${own.bytes.toString('utf8')}}`) as JsonObject;
  const chosen = chosenOf(tree, mask);
  return composeStoredText(metadata, {
    bytes: Buffer.from(treeText(chosen).slice(1, -1)),
    hasMembers: chosen.members.length > 0,
  });
}

function chosenOf(object: JsonObject, mask: FieldMask): JsonObject {
  return objectOf(
    object.members.flatMap((member) => {
      const wanted = mask.get(member.name);
      if (wanted === undefined) return [];
      const value = wanted === true ? member.value : within(member.value, wanted);
      return value === undefined ? [] : [{ ...member, value }];
    }),
  );
}

/** What of a value was chosen; undefined when it has nothing to choose from. */
function within(value: JsonNode, mask: FieldMask): JsonNode | undefined {
  if (value.kind === 'scalar') return undefined;
  return value.kind === 'object' ? chosenOf(value, mask) : chosenItems(value, mask);
}

function chosenItems(array: JsonArray, mask: FieldMask): JsonArray {
  return arrayOf(
    array.items.flatMap((item) => {
      const value = within(item.value, mask);
      return value === undefined ? [] : [{ ...item, value }];
    }),
  );
}
