import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import type { DocumentContent } from '../crypto/stored-text.ts';
import { defineJobs } from '../work/job.ts';
import { bufferOf, TREE_BYTES_MAX } from '../work/large-bytes.ts';
import type { Work } from '../work/work.ts';
import {
  acceptSchema,
  acceptSchemaSteps,
  type ContentCheck,
  checkOf,
  contentCheckOf,
} from './definition-schema.ts';
import { repeatedAlternatives, valuesOfSchema, walksOverOneValue } from './schema-work.ts';

type Schema = NonNullable<CollectionDefinition['schema']>;

/**
 * Values of a schema, references followed, up to which it is compiled on the thread of the event loop: that
 * takes some 5 ms.
 */
const SCHEMA_AT_ONCE_MAX = 128;
/**
 * Bytes of a document, times the looks that a schema may take at each value, up to which it is checked there:
 * a look may take microseconds.
 */
const LOOKS_AT_ONCE_MAX = 20_000;

/** The schema that was used last: a batch has one for many documents. */
let checked: { readonly schema: string; readonly check: ContentCheck } | undefined;

/** @public The thread for large documents finds it by its name. */
export const JOBS = defineJobs(import.meta.url, {
  check({ schema, bytes }: { readonly schema: string; readonly bytes: Uint8Array }): readonly FieldFault[] {
    if (checked?.schema !== schema) checked = { schema, check: checkOf(JSON.parse(schema)) };
    return checked.check({ bytes: bufferOf(bytes), hasMembers: true });
  },

  accept({ schema }: { readonly schema: string }): void {
    acceptSchema(JSON.parse(schema));
  },
});

/** What a schema refuses of the content of a document. Synchronous for what does not take long. */
export type CheckInTurns = (
  content: DocumentContent,
  work: Work,
) => readonly FieldFault[] | Promise<readonly FieldFault[]>;

/**
 * A check of a schema that was accepted. A large schema is compiled, and what takes long is checked, in the
 * thread for large documents; both find the same.
 *
 * @throws AppError `invalid_request` for a schema that is not accepted any more; by rejection of the check,
 * too.
 */
export function checkInTurnsOf(schema: Schema): CheckInTurns {
  return isLarge(schema) ? checkElsewhere(schema) : checkHere(schema, checkOf(schema));
}

/**
 * A check of a schema that somebody wants to define.
 *
 * @throws AppError `invalid_request` for one that is not accepted.
 */
export async function acceptInTurns(schema: Schema, work: Work): Promise<CheckInTurns> {
  if (isLarge(schema)) {
    await work.elsewhere(JOBS.accept, { schema: JSON.stringify(schema) });
    work.leave();
    return checkElsewhere(schema);
  }
  const steps = acceptSchemaSteps(schema);
  for (;;) {
    await work.pause();
    const step = steps.next();
    if (step.done !== true) continue;
    work.leave();
    return checkHere(schema, contentCheckOf(step.value));
  }
}

function checkElsewhere(schema: Schema): CheckInTurns {
  const text = JSON.stringify(schema);
  return ({ bytes }, work) => work.elsewhere(JOBS.check, { schema: text, bytes });
}

/** What takes long is checked elsewhere all the same. */
function checkHere(schema: Schema, check: ContentCheck): CheckInTurns {
  const looks = repeatedAlternatives(schema) + walksOverOneValue(schema);
  const bytesAtOnceMax = Math.min(TREE_BYTES_MAX, LOOKS_AT_ONCE_MAX / looks);
  const elsewhere = checkElsewhere(schema);
  return (content, work) =>
    content.bytes.length <= bytesAtOnceMax ? check(content) : elsewhere(content, work);
}

/** Also of one that nobody has looked at yet. */
function isLarge(schema: Schema): boolean {
  return valuesOfSchema(schema, SCHEMA_AT_ONCE_MAX) > SCHEMA_AT_ONCE_MAX;
}
