import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { runBunkms } from '../../src/cli/program.ts';
import { PATIENT, PATIENT_POSTGRES } from './process.ts';

/** Runs `bunkms` in this process. For a separate process see `process.ts`. */
export function bunkms(environment: Record<string, string>, ...args: string[]): Promise<Finished> {
  return capturedRun(() =>
    runBunkms(args, {
      // The memory guard must not apply to the test process.
      NODE_ENV: 'test',
      ...PATIENT,
      ...PATIENT_POSTGRES,
      ...environment,
    }),
  );
}
