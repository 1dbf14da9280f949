import { encodeKeyPart } from '../../values/key.ts';
import { type Path, pathOf, someOrElementAt } from '../../values/path.ts';
import { readValue, type Value } from '../../values/value.ts';
import { defineJobs } from '../../work/job.ts';
import { bufferOf } from '../../work/large-bytes.ts';

/**
 * Maximum number of entries of one document in one index. A document with more becomes a candidate of every
 * search, see {@link IndexKeys.tooMany}.
 */
export const ENTRIES_OF_DOCUMENT_MAX = 1_000;

const MISSING = encodeKeyPart(undefined);

/** A document's keys in one index, without its position. */
export interface IndexKeys {
  readonly keys: readonly string[];
  /** The keys with a value for every field, which a unique index enforces. */
  readonly complete: readonly string[];
  /**
   * The document has more combinations of values than an index stores, and is a candidate of every search
   * instead.
   */
  readonly tooMany: boolean;
}

export const JOBS = defineJobs(import.meta.url, {
  /** The keys of a document in indexes on these fields. */
  indexKeys(input: { readonly bytes: Uint8Array; readonly fields: readonly (readonly string[])[] }) {
    const value = readValue(bufferOf(input.bytes).toString());
    return input.fields.map((fields) => indexKeysOf(fields.map(pathOf), value));
  },
});

/**
 * The keys of a document: one for each combination of its values at the fields. An array counts as itself and
 * as each of its elements, and absence as a value. So everything that a comparison may look at has a key.
 */
export function indexKeysOf(fields: readonly Path[], document: Value): IndexKeys {
  let keys: string[] = [''];
  let complete: string[] = [''];
  for (const path of fields) {
    const parts = new Set<string>();
    someOrElementAt(document, path, (found) => {
      parts.add(encodeKeyPart(found));
      return parts.size > ENTRIES_OF_DOCUMENT_MAX;
    });
    const present = [...parts];
    if (present.length === 0) parts.add(MISSING);
    if (keys.length * parts.size > ENTRIES_OF_DOCUMENT_MAX) return { keys: [], complete: [], tooMany: true };
    complete = complete.flatMap((key) => present.map((part) => key + part));
    keys = keys.flatMap((key) => [...parts].map((part) => key + part));
  }
  return { keys, complete, tooMany: false };
}
