// npm run mutants: measures the tests. It changes one place of the product at a time, and runs the tests that
// import it. It works on a copy of the repository in the temporary folder.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { copyRepository, judge } from './lib/mutants/judge.mjs';
import { mutantsOf, productFiles, sample } from './lib/mutants/make.mjs';
import { relatedTests } from './lib/mutants/related.mjs';
import { root, runScript, UserError } from './lib/root.mjs';
import { Stopped, stopSignal } from './lib/stop-signals.mjs';

const USAGE = 'npm run mutants -- [--seed 1] [--count 300] [--file <part of a path>]';
/** Minimum percentage of caught mutants. A few of each sample change nothing that anybody can observe. */
const CAUGHT_MIN = 95;

const stop = stopSignal(() => process.exit(130));

await runScript('mutants', async () => {
  const { seed, count, file: part } = readOptions();
  const files = productFiles(root).filter((file) => file.includes(part));
  const all = files.flatMap((file) => mutantsOf(readFileSync(join(root, file), 'utf8'), file));
  const chosen = sample(all, count, seed);
  console.log(`${chosen.length} of ${all.length} mutants, seed ${seed}`);
  const testsOf = relatedTests(root);
  using copy = copyRepository(root);
  const survivors = [];
  try {
    for (const [at, mutant] of chosen.entries()) {
      const by = await judge(copy.root, mutant, testsOf(mutant.file), stop);
      if (by === undefined) survivors.push(mutant);
      console.log(`${at + 1}/${chosen.length} ${textOf(mutant)}\n    ${by ? `caught by ${by}` : 'SURVIVED'}`);
    }
  } catch (error) {
    if (error instanceof Stopped) return 130;
    throw error;
  }
  for (const mutant of survivors) console.log(`survived: ${textOf(mutant)}`);
  const percent = 100 - (100 * survivors.length) / Math.max(1, chosen.length);
  console.log(`${percent.toFixed(1)} % of ${chosen.length} mutants are caught`);
  return percent >= CAUGHT_MIN ? 0 : 1;
});

function readOptions() {
  const text = { type: 'string' };
  try {
    const { values } = parseArgs({ options: { seed: text, count: text, file: text } });
    const [seed, count] = [values.seed ?? 1, values.count ?? 300].map(Number);
    if (![seed, count].every(Number.isInteger)) throw new Error('--seed and --count are integers');
    return { seed, count, file: values.file ?? '' };
  } catch (error) {
    throw new UserError(`${error.message}\n${USAGE}`);
  }
}

function textOf({ file, line, lineText, operator, before, after }) {
  return `${file}:${line} ${operator}: ${before} → ${after}    in: ${lineText}`.replace(/\s*\n\s*/g, ' ');
}
