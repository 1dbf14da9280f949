import { OpenError } from '@bundoc/shared/crypto/aead';
import type { KeyRange } from '../../port/index-port.ts';
import type { Entry } from './entry.ts';
import type { Run } from './manifest.ts';
import { Page, partition, readNumbers } from './page.ts';
import { nearest, RunCursor } from './run-cursor.ts';
import { BATCH_PAGES, ENTRIES_OF_STEP, type RunSteps, type RunWriter, stepsOf } from './run-writer.ts';

/** Sorts after every place. */
const END = '\u0100';

/**
 * The first of the runs to be merged into one, up to the newest: the newer ones together exceed half of it.
 * Undefined if none is. So a run's entries are written again only after it has grown by half.
 */
export function mergeFrom(runs: readonly Run[]): number | undefined {
  let newer = 0;
  let from: number | undefined;
  for (let at = runs.length - 1; at > 0; at--) {
    newer += (runs[at] as Run).bytes;
    if (2 * newer > (runs[at - 1] as Run).bytes) from = at - 1;
  }
  return from;
}

/**
 * Merges adjacent runs into one, without the entries that a newer one of them supersedes.
 *
 * @param runs oldest first.
 * @param isOldest no run is older than these, so the result needs no changed documents.
 * @param random a random integer up to 2^48 - 1.
 * @throws OpenError if the caller lacks a page that it was to read, or it is not of the run.
 */
export function* mergeRuns(
  writer: RunWriter,
  runs: readonly Run[],
  isOldest: boolean,
): RunSteps {
  const changed: Float64Array[] = [];
  for (const run of runs) changed.push(yield* readChanged(run));
}
