// A Vitest reporter whose only word is the closing line of the run: "N passed, N failed, N skipped".

import { writeFileSync, writeSync } from 'node:fs';
import { countLine, countRun } from './lib/count-line.mjs';

export default class CountReporter {
  /**
   * @param {readonly import('vitest/node').TestModule[]} testModules
   * @param {readonly unknown[]} unhandledErrors
   */
  onTestRunEnd(testModules, unhandledErrors) {
    const line = `${countLine(countRun(testModules, unhandledErrors))}\n`;
    // `npm test` has the last word itself; it reads the line from a file.
    const file = process.env.TEST_COUNT_FILE;
    if (file !== undefined) writeFileSync(file, line);
    // At exit, so that nothing another reporter prints comes after it.
    else process.once('exit', () => writeSync(1, line));
  }
}
