import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { killGroup } from '../run.mjs';

/**
 * Near unit tests come first, because they catch most mutants; then other unit tests; then tests of whole
 * services.
 */
const STAGES = [
  { project: 'unit', from: 0, count: 6, limitMs: 120_000 },
  { project: 'unit', from: 6, count: 40, limitMs: 300_000 },
  { project: 'integration', from: 0, count: 12, limitMs: 300_000 },
];
/** Timeout of one test; those of the workspace are for busy machines. */
const TEST_TIMEOUT_MS = 60_000;
/** Time between the signal to stop and the kill. */
const GRACE_MS = 5_000;

/**
 * The verdict on a mutant: caught `by` a test, or survived.
 * @typedef {{ readonly caught: true, readonly by: string, readonly test: string | undefined } |
 * { readonly caught: false }} Verdict
 */

/**
 * Runs the tests of a mutant, stage after stage, until one catches it.
 * @param {ReturnType<typeof import('./copy.mjs').copyRepository>} copy
 * @param {import('./make.mjs').Mutant} mutant
 * @param {readonly string[]} tests that import the mutant's file, the nearest first.
 * @param {AbortSignal} signal
 * @param {(root: string, files: readonly string[],
 * options: { project: string, limitMs: number, signal: AbortSignal }) => Promise<TestRun>} run
 * @returns {Promise<Verdict>}
 */
export async function judge(copy, mutant, tests, signal, run = runTests) {
  for (const { project, from, count, limitMs } of STAGES) {
    const files = tests.filter((test) => projectOf(test) === project).slice(from, from + count);
    if (files.length === 0) continue;
    const options = { project, limitMs, signal };
    const result = await copy.withMutant(mutant, () => run(copy.root, files, options));
    if (result.file !== undefined) return { caught: true, by: result.by, test: result.file };
    if (result.outcome === 'passed') continue;
    // A run that hangs or crashes catches the mutant only if it passes without it.
    if ((await run(copy.root, files, options)).outcome === 'passed')
      return { caught: true, by: result.by, test: undefined };
  }
  return { caught: false };
}

/** The project of `vitest.workspace.ts` that a test belongs to. */
export function projectOf(test) {
  if (/^packages\/[^/]+\/src\/|^scripts\//.test(test)) return 'unit';
  return /^packages\/[^/]+\/test\/|^test\/[^/]+$/.test(test) ? 'integration' : undefined;
}

/**
 * The result of a test run: `by` names the failure, `file` is its test file if there is one.
 * @typedef {{ outcome: 'passed' | 'failed' | 'too long', by: string, file: string | undefined }} TestRun
 */

/**
 * Runs test files until the first failure.
 * @param {string} root
 * @param {readonly string[]} files
 * @param {{ project: string, limitMs: number, signal: AbortSignal }} options
 * @returns {Promise<TestRun>}
 */
export async function runTests(root, files, { project, limitMs, signal }) {
  signal.throwIfAborted();
  const report = join(root, 'node_modules', 'mutant-report.json');
  rmSync(report, { force: true });
  const args = ['run', '--config', 'vitest.workspace.ts', '--project', project, '--bail', '1'];
  args.push('--testTimeout', String(TEST_TIMEOUT_MS), '--reporter', 'json', '--outputFile', report, ...files);
  const child = spawn(process.execPath, [join(root, 'node_modules/vitest/vitest.mjs'), ...args], {
    cwd: root,
    // The long variants of tests would take hours for each mutant.
    env: { ...process.env, LONG_TESTS: undefined },
    stdio: 'ignore',
    detached: true,
  });
  const closed = new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
  const limit = AbortSignal.timeout(limitMs);
  const stop = AbortSignal.any([limit, signal]);
  stop.addEventListener('abort', () => endGroup(child, closed), { once: true });
  const code = await closed;
  signal.throwIfAborted();
  if (limit.aborted) return { outcome: 'too long', by: 'tests do not end', file: undefined };
  return code === 0
    ? { outcome: 'passed', by: '', file: undefined }
    : { outcome: 'failed', ...failureOf(root, report) };
}

async function endGroup(child, closed) {
  killGroup(child, 'SIGTERM');
  await Promise.race([closed, setTimeout(GRACE_MS, undefined, { ref: false })]);
  killGroup(child, 'SIGKILL');
}

/** The first failed test. A run can also fail outside tests. */
function failureOf(root, report) {
  let results = [];
  try {
    results = JSON.parse(readFileSync(report, 'utf8')).testResults;
  } catch {
    // The process exited before it wrote the report.
  }
  const found = results.map(({ name, ...result }) => ({ ...result, file: relative(root, name) }));
  for (const { file, assertionResults } of found) {
    const failed = assertionResults.find((one) => one.status === 'failed');
    if (failed) return { by: `${file}: ${failed.fullName}`, file };
  }
  // A file that does not load. Files that did not run because of the first failure have no message.
  for (const { file, status, message } of found)
    if (status === 'failed' && message !== '') return { by: `${file}: ${message.split('\n')[0]}`, file };
  return { by: 'the run fails', file: undefined };
}
