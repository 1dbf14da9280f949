// A Vitest reporter that prints the end of the run: what was skipped for want of a program, then "N passed, N
// failed, N skipped". The exit status agrees with that line.

import { writeFileSync, writeSync } from 'node:fs';
import { howToGet, PROGRAMS } from '../packages/shared/src/testing/programs.ts';
import { countRun, reportOf } from './lib/count-line.mjs';

export default class CountReporter {
  /**
   * @param {readonly import('vitest/node').TestModule[]} testModules
   * @param {readonly unknown[]} unhandledErrors
   */
  onTestRunEnd(testModules, unhandledErrors) {
    const run = countRun(testModules, unhandledErrors);
    // Vitest itself passes a run with tests that have no result.
    if (run.failed > 0) process.exitCode = 1;
    const report = `${reportOf(run, (name) => ({ about: howToGet(name), debian: PROGRAMS[name].debian }))}\n`;
    // `npm test` prints the report itself; it reads it from a file.
    const file = process.env.TEST_COUNT_FILE;
    if (file !== undefined) writeFileSync(file, report);
    // At exit, so that no other reporter prints after it.
    else process.once('exit', () => writeSync(1, report));
  }
}
