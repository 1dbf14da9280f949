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

/** Values of a schema, references followed, up to which the event loop compiles it; that takes some 5 ms. */
const SCHEMA_AT_ONCE_MAX = 128;
/**
 * Document bytes times visits per value up to which the event loop checks a document; a visit may take
 * microseconds.
 */
const VISITS_AT_ONCE_MAX = 20_000;

/** The last used schema: most documents of a batch share one. */
let checked: { readonly schema: string; readonly check: ContentCheck } | undefined;

/** @public The thread for large documents visits it up by name. */
export const JOBS = defineJobs(import.meta.url, {
  check({ schema, bytes }: { readonly schema: string; readonly bytes: Uint8Array }): readonly FieldFault[] {
    if (checked?.schema !== schema) checked = { schema, check: checkOf(JSON.parse(schema)) };
    return checked.check({ bytes: bufferOf(bytes), hasMembers: true });
  },

  accept({ schema }: { readonly schema: string }): void {
    acceptSchema(JSON.parse(schema));
  },
});

/** Finds the faults of a document. Synchronous for short work. */
export type CheckInTurns = (
  content: DocumentContent,
  work: Work,
) => readonly FieldFault[] | Promise<readonly FieldFault[]>;

/**
 * Returns the check of an accepted schema. The thread for large documents compiles large schemas and runs
 * long checks, with the same results.
 *
 * @throws AppError `invalid_request` for a schema that is no longer accepted; the check may also reject with
 *   it.
 */
export function checkInTurnsOf(schema: Schema): CheckInTurns {
  return isLarge(schema) ? checkElsewhere(schema) : checkHere(schema, checkOf(schema));
}

/**
 * Returns the check of a new schema.
 *
 * @throws AppError `invalid_request` for an unacceptable one.
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

/** Long checks still run in the thread. */
function checkHere(schema: Schema, check: ContentCheck): CheckInTurns {
  const visits = repeatedAlternatives(schema) + walksOverOneValue(schema);
  const bytesAtOnceMax = Math.min(TREE_BYTES_MAX, VISITS_AT_ONCE_MAX / visits);
  const elsewhere = checkElsewhere(schema);
  return (content, work) =>
    content.bytes.length <= bytesAtOnceMax ? check(content) : elsewhere(content, work);
}

/** Also safe for a schema that was not validated yet. */
function isLarge(schema: Schema): boolean {
  return valuesOfSchema(schema, SCHEMA_AT_ONCE_MAX) > SCHEMA_AT_ONCE_MAX;
}
