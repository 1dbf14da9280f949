// npm test: installs, builds, checks, and runs every test, as in CI. Further arguments go to Vitest. With
// --quick, it runs the quick unit tests alone, without the checks; with --checked, all tests without the
// checks, which `.ci/bare` has just made. Its last line is "N passed, N failed, N skipped", even when it
// stops before the first test.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { countLine, parseCountLine } from './lib/count-line.mjs';
import { findNode, readOrEmpty, withPathFirst } from './lib/node-runtime.mjs';
import { root, runScript } from './lib/root.mjs';
import { run } from './lib/run.mjs';
import { Stopped, stopSignal } from './lib/stop-signals.mjs';
import { prepare } from './lib/workspace.mjs';

const scratch = mkdtempSync(join(tmpdir(), 'bundoc-test-'));
const countFile = join(scratch, 'count');
const stop = stopSignal(() => process.exit(1));

await runScript('npm test', async () => {
  try {
    const node = await findNode(root, process.env);
    await prepare(root, node, 'test', stop);

    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const env = withPathFirst(node.env, join(root, 'node_modules', '.bin'));
    /** Runs a script of package.json like npm. */
    const script = (name, args, more = {}) => {
      console.log(`\n> ${name}: ${[scripts[name], ...args].join(' ')}`);
      return run('sh', ['-c', `${scripts[name]} "$@"`, name, ...args], {
        cwd: root,
        env: { ...env, ...more },
        stdout: 'inherit',
        signal: stop,
      });
    };
    const [first, ...others] = process.argv.slice(2);
    const isKind = first === '--quick' || first === '--checked';
    const status = isKind ? 0 : await script('check', []);
    if (status !== 0) return status;
    const isQuick = first === '--quick';
    const only = isQuick ? ['--project', 'unit', '--project', 'unit-alone'] : [];
    return await script('vitest', isKind ? [...only, ...others] : process.argv.slice(2), {
      TEST_COUNT_FILE: countFile,
      ...(isQuick && { QUICK_TESTS: '1' }),
    });
  } catch (error) {
    if (error instanceof Stopped) return 130;
    throw error;
  }
});

const lines = readOrEmpty(countFile).split('\n');
const count = parseCountLine(lines.pop() || countLine({ passed: 0, failed: 0, skipped: 0 }));
// A failure outside the tests counts too: the line must never look like success.
if (process.exitCode !== 0 && count.failed === 0) count.failed = 1;
rmSync(scratch, { recursive: true, force: true });
for (const line of lines) console.log(line);
console.log(countLine(count));
