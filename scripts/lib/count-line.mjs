/** @typedef {{ passed: number, failed: number, skipped: number }} Count */

/**
 * The line that CI reads. It does not read Vitest's own summary.
 * @param {Count} count
 */
export function countLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/**
 * @param {string} text
 * @returns {Count}
 */
export function parseCountLine(text) {
  const match = /^(\d+) passed, (\d+) failed, (\d+) skipped$/.exec(text.trim());
  if (match === null) throw new Error('not a count line');
  return { passed: Number(match[1]), failed: Number(match[2]), skipped: Number(match[3]) };
}

/**
 * Counts the tests of a run. A failure outside a test counts as a failed test: a module that could not be
 * imported, a hook that threw, or an unhandled error. A test that never ended has failed.
 *
 * @param {readonly import('vitest/node').TestModule[]} testModules
 * @param {readonly unknown[]} unhandledErrors
 * @returns {Count}
 */
export function countRun(testModules, unhandledErrors) {
  const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
  for (const testModule of testModules) {
    for (const suite of [testModule, ...testModule.children.allSuites()])
      if (suite.errors().length > 0) count.failed += 1;
    for (const test of testModule.children.allTests()) {
      const { state } = test.result();
      count[state === 'pending' ? 'failed' : state] += 1;
    }
  }
  return count;
}
