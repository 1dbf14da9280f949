import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);

const MODULE = new URL('../src/runtime/young-allocation.ts', import.meta.url).href;

/** Objects that survive, of one place in the code. */
const SURVIVORS = `
  const kept = [];
  const make = (n) => ({ n, parts: [n, n], later: () => n });
  for (let n = 0; n < 2_000_000; n++) kept[n % 500_000] = make(n);
`;

/** What V8 notes of the places in the code whose objects survive. */
async function notes(before: string): Promise<readonly string[]> {
  const { stdout } = await run(process.execPath, [
    ...['--trace-pretenuring-statistics', '--input-type=module', '--eval', before + SURVIVORS],
  ]);
  return stdout.split('\n').filter((line) => line.includes('AllocationSite'));
}

describe('allocation in the young generation', () => {
  it('does not depend on how many objects of a place in the code have survived', async () => {
    expect(await notes('')).not.toEqual([]);
    expect(await notes(`import { allocateYoung } from '${MODULE}'; allocateYoung();`)).toEqual([]);
  });
});
