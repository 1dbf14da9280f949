import { execFileSync } from 'node:child_process';
import { getPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { BACKGROUND_NICENESS } from './thread-priority.ts';

const MODULE = fileURLToPath(new URL('./thread-priority.ts', import.meta.url));
const PROGRAM = `
  const { getPriority } = require('node:os');
  const before = getPriority();
  import(${JSON.stringify(MODULE)}).then(({ yieldToOthers }) => {
    yieldToOthers();
    console.log(JSON.stringify([before, getPriority()]));
  });
`;

/** The niceness of a process that starts with `more` than that of this one, before and after it yields. */
function nicenessOf(more: number): readonly [number, number] {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--eval', PROGRAM];
  const output = execFileSync('nice', ['-n', String(more), ...node], { encoding: 'utf8' });
  return JSON.parse(output) as [number, number];
}

it.runIf(process.platform === 'linux')(
  'a thread that yields to others has a low priority, and keeps one that is lower already',
  () => {
    const own = getPriority();
    expect(nicenessOf(0)).toEqual([own, Math.max(own, BACKGROUND_NICENESS)]);
    const lower = Math.min(19, own + 15);
    expect(nicenessOf(15)).toEqual([lower, lower]);
  },
);
