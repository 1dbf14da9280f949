import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { runBunkms } from '../../src/cli/program.ts';

/** Runs `bunkms` in this process. For a separate process see `process.ts`. */
export function bunkms(environment: Record<string, string>, ...args: string[]): Promise<Finished> {
  return capturedRun(() =>
    runBunkms(args, {
      // The memory guard must not apply to the test process.
      NODE_ENV: 'test',
      BUNKMS_SQLITE_DEADLINE_MS: String(PATIENT_MS),
      ...environment,
    }),
  );
}
