import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { patientUrl } from '@bundoc/shared/testing/timing';
import { runBunkms } from '../../src/cli/program.ts';
import { PATIENT } from './process.ts';

/** Runs `bunkms` in this process. For a separate process see `process.ts`. */
export function bunkms(environment: Record<string, string>, ...args: string[]): Promise<Finished> {
  const storage = environment['BUNKMS_STORAGE'];
  return capturedRun(() =>
    runBunkms(args, {
      // The memory guard must not apply to the test process.
      NODE_ENV: 'test',
      ...PATIENT,
      ...environment,
      ...(storage?.startsWith('postgres') ? { BUNKMS_STORAGE: patientUrl(storage) } : {}),
    }),
  );
}
