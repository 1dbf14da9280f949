// A Vitest reporter that prints only the final line of the run: "N passed, N failed, N skipped".

import { writeFileSync, writeSync } from 'node:fs';
import { countLine, countRun } from './lib/count-line.mjs';

export default class CountReporter {
  /**
   * @param {readonly import('vitest/node').TestModule[]} testModules
   * @param {readonly unknown[]} unhandledErrors
   */
  onTestRunEnd(testModules, unhandledErrors) {
    const line = `${countLine(countRun(testModules, unhandledErrors))}\n`;
    // `npm test` prints the final line itself; it reads the line from a file.
    const file = process.env.TEST_COUNT_FILE;
    if (file !== undefined) writeFileSync(file, line);
    // At exit, so that no other reporter prints after it.
    else process.once('exit', () => writeSync(1, line));
  }
}
