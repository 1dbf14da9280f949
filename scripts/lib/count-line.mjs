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
 * imported, a hook that threw, or an unhandled error. A test without a result has failed, and is named.
 *
 * @param {readonly import('vitest/node').TestModule[]} testModules
 * @param {readonly unknown[]} unhandledErrors
 * @returns {Count & { unfinished: string[], missing: Map<string, number> }} `missing` has the number of
 *   skipped tests by the program that they need.
 */
export function countRun(testModules, unhandledErrors) {
  const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
  const unfinished = [];
  const missing = new Map();
  for (const testModule of testModules) {
    for (const suite of [testModule, ...testModule.children.allSuites()])
      if (suite.errors().length > 0) count.failed += 1;
    for (const test of testModule.children.allTests()) {
      const { state } = test.result();
      count[state === 'pending' ? 'failed' : state] += 1;
      if (state === 'pending') unfinished.push(`${testModule.relativeModuleId} > ${test.fullName}`);
      const program = state === 'skipped' ? test.meta().missing : undefined;
      if (program !== undefined) missing.set(program, (missing.get(program) ?? 0) + 1);
    }
  }
  return { ...count, unfinished, missing };
}

/** The most names of tests without a result that a report has. */
const NAMES_MAX = 20;

/**
 * What the end of a run says besides Vitest's summary; the last line is the count line.
 *
 * @param {ReturnType<typeof countRun>} run
 * @param {(program: string) => { about: string, debian: string }} describe `about` says what a program is,
 *   and how to get it; `debian` are its packages there.
 */
export function reportOf({ unfinished, missing, ...count }, describe) {
  const lines = [];
  if (unfinished.length > 0) {
    lines.push(`${unfinished.length} of the failed tests have no result:`);
    for (const name of unfinished.slice(0, NAMES_MAX)) lines.push(`  ${name}`);
    if (unfinished.length > NAMES_MAX) lines.push(`  and ${unfinished.length - NAMES_MAX} more`);
  }
  if (missing.size > 0) {
    lines.push('Skipped, because something is missing (CONTRIBUTING.md lists what each one adds):');
    for (const [program, tests] of [...missing].sort(([, one], [, other]) => other - one))
      lines.push(
        `  ${String(tests).padStart(5)} ${tests === 1 ? 'test needs' : 'tests need'} ${describe(program).about}`,
      );
    const packages = [...missing.keys()].map((program) => describe(program).debian).filter(Boolean);
    if (packages.length > 0)
      lines.push(`On Debian: apt-get install --no-install-recommends ${packages.sort().join(' ')}`);
  }
  return [...lines, countLine(count)].join('\n');
}
