import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);

const urlOf = (name: string) => new URL(`../src/${name}.ts`, import.meta.url).href;

/** A service that has started. */
const SERVICE = `
  import { runService } from '${urlOf('process/lifecycle')}';
  import { createLogger } from '${urlOf('logs/logger')}';
  const logger = createLogger({ service: 'bundoc', level: 'silent' });
  await runService(logger, async () => ({ close: async () => undefined }));
`;

/** Objects that survive, of one place in the code. */
const SURVIVORS = `
  console.log('busy');
  const kept = [];
  const make = (n) => ({ n, parts: [n, n], later: () => n });
  for (let n = 0; n < 2_000_000; n++) kept[n % 500_000] = make(n);
  process.exit(0);
`;

/** What V8 notes of the places in busy code whose objects survive. */
async function notes(before: string): Promise<readonly string[]> {
  const { stdout } = await run(process.execPath, [
    ...['--trace-pretenuring-statistics', '--input-type=module', '--eval', before + SURVIVORS],
  ]);
  const [, busy = ''] = stdout.split('busy\n');
  return busy.split('\n').filter((line) => line.includes('AllocationSite'));
}

describe('a service', () => {
  it('allocates in the young generation, however many objects of the same code have survived', async () => {
    expect(await notes('')).not.toEqual([]);
    expect(await notes(SERVICE)).toEqual([]);
  });
});
