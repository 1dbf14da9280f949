// Which files of tests share a process, and which are quick.

import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DURATIONS } from './test-stages.mjs';

export const UNITS = ['packages/*/src/**/*.test.ts', 'scripts/**/*.test.ts'];
/**
 * What a file changes for all that run in its process, or measures of all of them. Spies and fake timers are
 * not among it: `restored.ts` takes them back after each test. A spy on the console is, since what runs
 * commands in the process of a test keeps the console that it finds.
 */
const ALTERS =
  /\bvi\.(?:mock|doMock|hoisted|stub\w+|setSystemTime|resetModules)\b|\bvi\.spyOn\((?:console|process)\b|process\.env\[[^\]]*\] ?=|delete process\.env|process\.(?:on|once|chdir|exit|memoryUsage)\b/;

/**
 * Files that leave their process as it was run `together`, in as many processes as run at a time. Each
 * process loads each module once. The others run `alone`.
 *
 * @param {string} root
 * @param {readonly string[]} patterns
 * @returns {{ together: string[], alone: string[] }}
 */
export function byProcess(root, patterns) {
  const files = globSync([...patterns], { cwd: root }).sort();
  const alone = new Set(files.filter((path) => ALTERS.test(readFileSync(join(root, path), 'utf8'))));
  return { together: files.filter((path) => !alone.has(path)), alone: [...alone] };
}

/**
 * Unit tests but property tests, and files that are listed as slow in `durations.json`.
 *
 * @param {string} root
 * @returns {string[]}
 */
export function quickUnits(root) {
  const slow = JSON.parse(readFileSync(join(root, DURATIONS), 'utf8'));
  const isSlow = (/** @type {string} */ path) =>
    path.includes('.prop.') || [`unit ${path}`, `unit-alone ${path}`].some((id) => slow[id] !== undefined);
  return globSync(UNITS, { cwd: root }).filter((path) => !isSlow(path));
}
