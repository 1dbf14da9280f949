// npm run mutants: measures the tests. It changes one place of the product at a time, and runs the tests that
// import it. It works on a copy of the repository in the temporary folder.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { copyRepository } from './lib/mutants/copy.mjs';
import { productFiles, typeScriptFiles } from './lib/mutants/files.mjs';
import { judge, projectOf, runTests } from './lib/mutants/judge.mjs';
import { mutantsOf, sample } from './lib/mutants/make.mjs';
import { relatedTests } from './lib/mutants/related.mjs';
import { countVerdicts, reasonOf } from './lib/mutants/report.mjs';
import { root, runScript, UserError } from './lib/root.mjs';
import { Stopped, stopSignal } from './lib/stop-signals.mjs';

const USAGE = `npm run mutants -- [--seed 1] [--count 300] [--from 1] [--package bundoc] [--file <part of a path>] [--list]`;
/** Minimum percentage of caught mutants among those that change behaviour. */
const CAUGHT_MIN = 97;

const stop = stopSignal(() => process.exit(130));

await runScript('mutants', async () => {
  const options = readOptions();
  const all = productFiles(root)
    .filter(
      (file) => file.startsWith(`packages/${options.package ?? ''}`) && file.includes(options.file ?? ''),
    )
    .flatMap((file) => mutantsOf(readFileSync(join(root, file), 'utf8'), file));
  const chosen = sample(all, options.count, options.seed).slice(options.from - 1);
  console.log(`${chosen.length} of ${all.length} mutants, seed ${options.seed}, from ${options.from}`);
  if (options.list) {
    for (const mutant of chosen) console.log(textOf(mutant));
    return 0;
  }
  using copy = copyRepository(root);
  try {
    return await measure(copy, chosen);
  } catch (error) {
    if (error instanceof Stopped) return 130;
    throw error;
  }
});

function readOptions() {
  const text = { type: 'string' };
  try {
    const { values } = parseArgs({
      options: { seed: text, count: text, from: text, package: text, file: text, list: { type: 'boolean' } },
    });
    const [seed, count, from] = [values.seed ?? 1, values.count ?? 300, values.from ?? 1].map(Number);
    if (![seed, count, from].every(Number.isInteger) || from < 1)
      throw new Error('--seed, --count and --from are integers; --from is 1 for the first of the sample');
    return { ...values, seed, count, from };
  } catch (error) {
    throw new UserError(`${error.message}\n${USAGE}`);
  }
}

async function measure(copy, mutants) {
  const testsOf = relatedTests(root, typeScriptFiles(root));
  const verdicts = [];
  for (const [at, mutant] of mutants.entries()) {
    const reason = reasonOf(mutant);
    const verdict =
      reason === undefined
        ? await judge(copy, mutant, testsOf(mutant.file), stop)
        : { caught: false, reason };
    verdicts.push({ mutant, verdict });
    const outcome = verdict.caught ? `caught by ${verdict.by}` : (reason ?? 'SURVIVED');
    console.log(`${at + 1}/${mutants.length} ${textOf(mutant)}\n    ${outcome}`);
  }
  await checkTests(copy, verdicts);
  const { caught, unchanged, survivors, percent } = countVerdicts(verdicts);
  for (const mutant of survivors) console.log(`survived: ${textOf(mutant)}`);
  console.log(
    `${mutants.length} mutants: ${caught} caught, ${unchanged} change nothing, ${survivors.length} survived: ${percent.toFixed(1)} % of those that change behaviour are caught`,
  );
  return percent >= CAUGHT_MIN ? 0 : 1;
}

/** A test that fails without a mutant has caught nothing. */
async function checkTests(copy, verdicts) {
  const tests = new Set(verdicts.flatMap(({ verdict }) => verdict.test ?? []));
  for (const project of ['unit', 'integration']) {
    const files = [...tests].filter((test) => projectOf(test) === project);
    if (files.length === 0) continue;
    const result = await runTests(copy.root, files, { project, limitMs: 3_600_000, signal: stop });
    if (result.outcome !== 'passed')
      throw new UserError(`a test fails without a mutant: ${result.by ?? files}`);
  }
}

function textOf({ file, line, lineText, operator, before, after }) {
  return `${file}:${line} ${operator}: ${before} → ${after}    in: ${lineText}`.replace(/\s*\n\s*/g, ' ');
}
