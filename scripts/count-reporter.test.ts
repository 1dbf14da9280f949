import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** Runs Vitest on one file of tests, whose last line of output is the count line. */
function run(tests: string, environment: Record<string, string> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-count-'));
  folders.push(folder);
  const config = {
    test: { globals: true, reporters: [join(root, 'scripts/count-reporter.mjs')], testTimeout: 200 },
  };
  writeFileSync(join(folder, 'vitest.config.mjs'), `export default ${JSON.stringify(config)}`);
  writeFileSync(join(folder, 'some.test.mjs'), tests);
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  const { TEST_COUNT_FILE: _, ...inherited } = process.env;
  const { status, stdout } = spawnSync(process.execPath, [vitest, 'run', '--root', folder], {
    env: { ...inherited, ...environment },
    encoding: 'utf8',
  });
  const lines = stdout.trim().split('\n');
  return { status, line: lines.at(-1), lines };
}

describe('the closing line and the exit status of a run', () => {
  it.each([
    ['tests that pass or are skipped', 'it("a", () => {}); it.skip("b", () => {}); it.todo("c")', [1, 0, 2]],
    ['a test that fails', 'it("a", () => {}); it("b", () => expect(1).toBe(2))', [1, 1, 0]],
    ['a test that must fail, and does', 'it.fails("a", () => expect(1).toBe(2))', [1, 0, 0]],
    ['a test that never ends', 'it("a", () => new Promise(() => {}))', [0, 1, 0]],
    ['a test that skips itself', 'it("a", (context) => context.skip())', [0, 0, 1]],
    ['a file that cannot be imported', 'import "./absent.mjs"; it("a", () => {})', [0, 1, 0]],
    ['a file without tests', '', [0, 1, 0]],
    [
      'a hook that throws before the tests',
      'beforeAll(() => { throw new Error() }); it("a", () => {})',
      [0, 1, 1],
    ],
    [
      'a hook that throws after the tests',
      'afterAll(() => { throw new Error() }); it("a", () => {})',
      [1, 1, 0],
    ],
    [
      'an error outside tests',
      'it("a", () => { void Promise.reject(new Error()); return new Promise((r) => setTimeout(r, 50)) })',
      [1, 1, 0],
    ],
  ] as const)('agree after %s', (_, tests, [passed, failed, skipped]) => {
    const { status, line } = run(tests);
    expect([line, status]).toEqual([
      `${passed} passed, ${failed} failed, ${skipped} skipped`,
      failed === 0 ? 0 : 1,
    ]);
  });

  it('report a test without a result as a failure, with its name', () => {
    // Vitest passes this run: nothing says how the test ended.
    const { status, lines } = run(
      'it("a", () => {}); it("b", ({ task }) => { const { result } = task; Object.defineProperty(task, "result", { get: () => ({ ...result, state: "run" }), set() {} }) })',
    );
    expect([status, ...lines.slice(-3)]).toEqual([
      1,
      '1 of the failed tests have no result:',
      '  some.test.mjs > b',
      '1 passed, 1 failed, 0 skipped',
    ]);
  });
});
