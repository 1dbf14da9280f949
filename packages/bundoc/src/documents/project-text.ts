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
import { freeMemory } from '@bundoc/shared/process/free-memory';
import { composeStoredText, ownContentOf } from '../crypto/stored-text.ts';
import type { StoredDocument } from '../engine/port/port.ts';
import { defineJobs } from '../work/job.ts';
import { bufferOf, copyOf, TREE_BYTES_MAX } from '../work/large-bytes.ts';
import type { Work } from '../work/work.ts';
import { type FieldMask, type Fields, readFields } from './fields.ts';

/** @public The thread for large documents looks it up by name. */
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
 * {@link projectText} of each document, yielding in between; large documents run in another thread. Frees the
 * documents' texts.
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
 * A document's text with its metadata and only the selected members, each verbatim.
 *
 * A path applies to every object of an array. Items that are not objects, or that have no selected member,
 * are left out.
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
      const value = wanted === true ? member.value : projectValue(member.value, wanted);
      return value === undefined ? [] : [{ ...member, value }];
    }),
  );
}

/** The selected part of a value; undefined when nothing in it can be selected. */
function projectValue(value: JsonNode, mask: FieldMask): JsonNode | undefined {
  if (value.kind === 'scalar') return undefined;
  return value.kind === 'object' ? chosenOf(value, mask) : chosenItems(value, mask);
}

function chosenItems(array: JsonArray, mask: FieldMask): JsonArray {
  return arrayOf(
    array.items.flatMap((item) => {
      const value = projectValue(item.value, mask);
      return value === undefined ? [] : [{ ...item, value }];
    }),
  );
}
