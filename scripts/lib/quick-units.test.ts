import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { quickUnits } from './quick-units.mjs';

const root = mkdtempSync(join(tmpdir(), 'bundoc-quick-'));
afterAll(() => rmSync(root, { recursive: true }));

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

it('the quick unit tests run in one process, except files that alter it, and without the slow ones', () => {
  const src = 'packages/some/src';
  write(
    'test/support/durations.json',
    `{ "unit ${src}/slow.test.ts": 4, "integration test/all.test.ts": 9 }`,
  );
  for (const name of ['slow.test.ts', 'any.prop.test.ts', 'plain.test.ts', 'no-test.ts'])
    write(`${src}/${name}`, '');
  write('test/all.test.ts', '');
  write(`${src}/deep/clock.test.ts`, 'vi.useFakeTimers();');
  write(`${src}/mock.test.ts`, "vi.mock('node:fs');");
  write(`${src}/variable.test.ts`, "process.env['A'] = '1';");
  expect(quickUnits(root)).toEqual({
    together: [`${src}/plain.test.ts`],
    alone: [`${src}/deep/clock.test.ts`, `${src}/mock.test.ts`, `${src}/variable.test.ts`],
  });
});
