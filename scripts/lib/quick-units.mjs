// The unit tests of `npm run test:quick`.

import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DURATIONS } from './test-stages.mjs';

const UNITS = ['packages/*/src/**/*.test.ts', 'scripts/**/*.test.ts'];
/** What a file changes for all that run in its process: modules, clocks, methods, the environment. */
const ALTERS =
  /\bvi\.(?:mock|doMock|hoisted|spyOn|fn|stub\w+|useFakeTimers|setSystemTime|resetModules)\b|process\.env\[[^\]]*\] ?=|delete process\.env|process\.(?:on|once|chdir|exit)\(/;

/**
 * All unit tests but property tests, and files that took 4 s and more when `durations.json` was written.
 * Files that leave their process as it was run `together`, in one for each processor, which loads each module
 * once. The others run `alone`, as all do in `npm test`.
 *
 * @param {string} root
 * @returns {{ together: string[], alone: string[] }}
 */
export function quickUnits(root) {
  const durations = JSON.parse(readFileSync(join(root, DURATIONS), 'utf8'));
  const quick = globSync(UNITS, { cwd: root })
    .filter((path) => !path.includes('.prop.') && durations[`unit ${path}`] === undefined)
    .sort();
  const alone = new Set(quick.filter((path) => ALTERS.test(readFileSync(join(root, path), 'utf8'))));
  return { together: quick.filter((path) => !alone.has(path)), alone: [...alone] };
}
