import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { runBunkms } from '../../src/cli/program.ts';

/** Runs `bunkms` in this process; as one of its own, `process.ts` does. */
export function bunkms(environment: Record<string, string>, ...args: string[]): Promise<Finished> {
  return capturedRun(() =>
    runBunkms(args, {
      // What guards a process's memory is not for that of the tests.
      NODE_ENV: 'test',
      BUNKMS_SQLITE_DEADLINE_MS: String(PATIENT_MS),
      ...environment,
    }),
  );
}
