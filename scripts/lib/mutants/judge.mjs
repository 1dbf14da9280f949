import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from '../run.mjs';
import { mutate } from './make.mjs';

/**
 * Near unit tests come first, because they catch most mutants; then other unit tests; then tests of whole
 * services.
 */
const STAGES = [
  { project: 'unit', from: 0, to: 6, limitMs: 120_000 },
  { project: 'unit', from: 6, to: 46, limitMs: 300_000 },
  { project: 'integration', from: 0, to: 12, limitMs: 300_000 },
];
/** The tests of each project of `vitest.workspace.ts`. */
const PATHS = {
  unit: /^packages\/[^/]+\/src\/|^scripts\//,
  integration: /^packages\/[^/]+\/test\/|^test\/[^/]+$/,
};
/** Timeout of one test; those of the workspace are for busy machines. */
const TEST_TIMEOUT_MS = 60_000;
const LEFT_OUT = new Set(['.git', '.pnpm', '.cache', '.vite', '.vite-temp', '.vitest-cache', 'data']);

/**
 * A copy of the repository for mutants, so that the repository itself is never changed. It shares the
 * installed packages, but not those of the workspace.
 * @param {string} root
 */
export function copyRepository(root) {
  const copy = mkdtempSync(join(tmpdir(), 'mutants-'));
  const filter = (path) =>
    !relative(root, path)
      .split('/')
      .some((name) => LEFT_OUT.has(name));
  cpSync(root, copy, { recursive: true, verbatimSymlinks: true, filter });
  mkdirSync(join(copy, 'node_modules'), { recursive: true });
  symlinkSync(join(root, 'node_modules', '.pnpm'), join(copy, 'node_modules', '.pnpm'));
  return { root: copy, [Symbol.dispose]: () => rmSync(copy, { recursive: true, force: true }) };
}

/**
 * Runs the tests of a mutant, stage after stage, until one catches it. The mutant is in the copy only while
 * they run.
 * @param {string} copy
 * @param {import('./make.mjs').Mutant} mutant
 * @param {readonly string[]} tests that import the mutant's file, the nearest first.
 * @param {AbortSignal} stop
 * @param {typeof runTests} runFiles
 * @returns {Promise<string | undefined>} what has caught it; undefined when it survived.
 */
export async function judge(copy, mutant, tests, stop, runFiles = runTests) {
  const path = join(copy, mutant.file);
  const source = readFileSync(path, 'utf8');
  for (const { project, from, to, limitMs } of STAGES) {
    const files = tests.filter((test) => PATHS[project].test(test)).slice(from, to);
    if (files.length === 0) continue;
    const options = { project, limitMs, stop };
    writeFileSync(path, mutate(source, mutant));
    const failure = await runFiles(copy, files, options).finally(() => writeFileSync(path, source));
    if (failure === undefined) continue;
    // What fails without the mutant too has caught nothing.
    const suspects = failure.file === undefined ? files : [failure.file];
    if ((await runFiles(copy, suspects, options)) === undefined) return failure.by;
  }
  return undefined;
}

/**
 * Runs test files until the first failure.
 * @param {string} root
 * @param {readonly string[]} files
 * @param {{ project: string, limitMs: number, stop: AbortSignal }} options
 * @returns {Promise<{ by: string, file?: string } | undefined>} the failure, with its file if it has one.
 */
async function runTests(root, files, { project, limitMs, stop }) {
  const report = join(root, 'node_modules', 'mutant-report.json');
  rmSync(report, { force: true });
  const args = ['run', '--config', 'vitest.workspace.ts', '--project', project, '--bail', '1'];
  args.push('--testTimeout', String(TEST_TIMEOUT_MS), '--reporter', 'json', '--outputFile', report, ...files);
  const limit = AbortSignal.timeout(limitMs);
  try {
    const code = await run(process.execPath, [join(root, 'node_modules/vitest/vitest.mjs'), ...args], {
      cwd: root,
      // The long variants of tests would take hours for each mutant.
      env: { ...process.env, LONG_TESTS: undefined },
      stdout: 'ignore',
      signal: AbortSignal.any([limit, stop]),
      // A mutant may loop without end.
      killSignal: 'SIGKILL',
    });
    return code === 0 ? undefined : failureOf(root, report);
  } catch (error) {
    if (stop.aborted || !limit.aborted) throw error;
    return { by: 'tests do not end' };
  }
}

/** The first failed test, or a file that does not load. A run can also fail outside tests. */
function failureOf(root, report) {
  let results = [];
  try {
    results = JSON.parse(readFileSync(report, 'utf8')).testResults;
  } catch {
    // The process exited before it wrote the report.
  }
  const failures = results.flatMap(({ name, status, message, assertionResults }) => {
    const file = relative(root, name);
    const failed = assertionResults.find((one) => one.status === 'failed');
    if (failed) return [{ by: `${file}: ${failed.fullName}`, file }];
    // Files that did not run because of the first failure have no message.
    return status === 'failed' && message !== '' ? [{ by: `${file}: ${message.split('\n')[0]}`, file }] : [];
  });
  return failures[0] ?? { by: 'the run fails' };
}
