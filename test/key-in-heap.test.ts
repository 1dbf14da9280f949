import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runNode } from '@bundoc/shared/testing/node-process';
import { expect, it } from 'vitest';

it('the heap of either service has no string with an exported key', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-heap-'));
  try {
    const script = fileURLToPath(new URL('support/export-and-snapshot.ts', import.meta.url));
    expect(await runNode([script, folder], { NODE_ENV: 'test' })).toMatchObject({ code: 0 });
    const heap = readFileSync(join(folder, 'heap.heapsnapshot'));
    const [key, control] = [readFileSync(join(folder, 'key')), readFileSync(join(folder, 'control'))];
    expect([key.length, control.length]).toEqual([44, 44]);
    expect(heap.includes(control)).toBe(true);
    expect(heap.includes(key)).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
