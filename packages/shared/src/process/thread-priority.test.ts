import { execFileSync } from 'node:child_process';
import { getPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { BACKGROUND_NICENESS, HELPER_NICENESS } from './thread-priority.ts';

const MODULE = fileURLToPath(new URL('./thread-priority.ts', import.meta.url));
/** Prints what `report` returns before and after a call of `name`. */
const programOf = (name: string, report: string) => `
  const { getPriority } = require('node:os');
  const { readdirSync, readFileSync } = require('node:fs');
  const report = ${report};
  const before = report();
  import(${JSON.stringify(MODULE)}).then((module) => {
    module.${name}();
    console.log(JSON.stringify([before, report()]));
  });
`;

/** Runs a program in a process with `more` niceness than this one. */
function run<T>(more: number, program: string): T {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--eval', program];
  return JSON.parse(execFileSync('nice', ['-n', String(more), ...node], { encoding: 'utf8' })) as T;
}

const onLinux = it.runIf(process.platform === 'linux');

onLinux('a thread that yields to others has a low priority, and keeps one that is lower already', () => {
  const nicenessOf = (more: number) =>
    run<readonly [number, number]>(more, programOf('yieldToOthers', 'getPriority'));
  const own = getPriority();
  expect(nicenessOf(0)).toEqual([own, Math.max(own, BACKGROUND_NICENESS)]);
  const lower = Math.min(19, own + 15);
  expect(nicenessOf(15)).toEqual([lower, lower]);
});

/** The niceness of the main thread, and that of each helper thread of V8. */
const OF_THREADS = `() => {
  const name = (id) => readFileSync('/proc/self/task/' + id + '/comm', 'latin1');
  const helpers = readdirSync('/proc/self/task').filter((id) => name(id).startsWith('V8Worker'));
  return [getPriority(), helpers.map((id) => getPriority(Number(id)))];
}`;

onLinux('the helper threads of V8 have a low priority, and the event loop keeps its own', () => {
  type Niceness = readonly [main: number, helpers: number[]];
  const nicenessOf = (more: number) =>
    run<readonly [Niceness, Niceness]>(more, programOf('lowerHelperThreads', OF_THREADS));
  const own = getPriority();
  const [[, helpers], after] = nicenessOf(0);
  // Before Node 24, threads have no names.
  if (Number(process.versions.node.split('.')[0]) >= 24) expect(helpers).not.toEqual([]);
  expect(after).toEqual([own, helpers.map(() => Math.max(own, HELPER_NICENESS))]);
  const lower = Math.min(19, own + 15);
  expect(nicenessOf(15)[1]).toEqual([lower, helpers.map(() => lower)]);
});
