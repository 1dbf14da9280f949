import type { FieldFault } from '@bundoc/shared/contract/problem';
import type { DocumentContent } from '../crypto/stored-text.ts';
import { readValue } from '../values/value.ts';
import { defineJobs } from '../work/job.ts';
import { bufferOf, TREE_BYTES_MAX } from '../work/large-bytes.ts';
import type { Work } from '../work/work.ts';
import { compileSchema, type Schema, type SchemaCheck } from './json-schema.ts';
import { APPLIED_DEPTH_MAX } from './schema-evaluation.ts';

/** Steps of a check on the event loop's thread, some milliseconds. A longer one is repeated in the thread. */
const STEPS_AT_ONCE_MAX = 50_000;
/** Maximum number of steps of a check, some 0.2 s and at most a second. */
export const STEPS_MAX = 10_000_000;
/** Maximum number of faults in one answer; of documents above this size one, since paths may be long. */
const FAULTS_MAX = 20;

const TOO_LONG = `takes more than ${STEPS_MAX} steps to check, or ${APPLIED_DEPTH_MAX} schemas within each other`;

/** The last used schema: most documents of a batch share one. */
let last: { readonly text: string; readonly check: SchemaCheck } | undefined;

/** @public The thread for large documents imports it by name. */
export const JOBS = defineJobs(import.meta.url, {
  check({ schema, bytes }: { readonly schema: string; readonly bytes: Uint8Array }): readonly FieldFault[] {
    if (last?.text !== schema) last = { text: schema, check: compileSchema(JSON.parse(schema)) };
    return faultsOf(last.check, bufferOf(bytes), STEPS_MAX) ?? [{ path: '', message: TOO_LONG }];
  },
});

/** Finds the faults of a document. Synchronous for short work. */
export type CheckInTurns = (
  content: DocumentContent,
  work: Work,
) => readonly FieldFault[] | Promise<readonly FieldFault[]>;

/**
 * Returns the check of a schema. The thread for large documents runs long checks.
 *
 * @throws AppError `invalid_request` for an unacceptable schema.
 */
export function checkInTurnsOf(schema: Schema): CheckInTurns {
  const check = compileSchema(schema);
  return ({ bytes }, work) =>
    (bytes.length <= TREE_BYTES_MAX ? faultsOf(check, bytes, STEPS_AT_ONCE_MAX) : undefined) ??
    work.elsewhere(JOBS.check, { schema: JSON.stringify(schema), bytes });
}

/** {@link checkInTurnsOf} for a new schema, which may take some milliseconds. */
export async function acceptInTurns(schema: Schema, work: Work): Promise<CheckInTurns> {
  await work.pause();
  const check = checkInTurnsOf(schema);
  work.leave();
  return check;
}

function faultsOf(check: SchemaCheck, bytes: Buffer, stepsMax: number): readonly FieldFault[] | undefined {
  const faultsMax = bytes.length <= TREE_BYTES_MAX ? FAULTS_MAX : 1;
  return check(readValue(`{${bytes.toString()}}`), stepsMax, faultsMax);
}
