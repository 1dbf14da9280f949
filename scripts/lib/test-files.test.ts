import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { byProcess, quickUnits, UNITS } from './test-files.mjs';

const root = mkdtempSync(join(tmpdir(), 'bundoc-quick-'));
afterAll(() => rmSync(root, { recursive: true }));

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

const src = 'packages/some/src';
const altering = [`${src}/deep/console.test.ts`, `${src}/mock.test.ts`, `${src}/variable.test.ts`];
/** What is taken back after each test. */
const restored = [`${src}/clock.test.ts`, `${src}/spy.test.ts`];
write('test/support/durations.json', `{ "unit ${src}/slow.test.ts": 4, "integration test/all.test.ts": 9 }`);
for (const name of ['slow.test.ts', 'any.prop.test.ts', 'plain.test.ts', 'no-test.ts'])
  write(`${src}/${name}`, '');
write('test/all.test.ts', '');
write(`${src}/clock.test.ts`, 'vi.useFakeTimers();');
write(`${src}/deep/console.test.ts`, "vi.spyOn(console, 'log');");
write(`${src}/mock.test.ts`, "vi.mock('node:fs');");
write(`${src}/spy.test.ts`, "vi.spyOn(store, 'list');");
write(`${src}/variable.test.ts`, "process.env['A'] = '1';");

it('files share a process, except those that alter it', () => {
  expect(byProcess(root, UNITS)).toEqual({
    together: [`${src}/any.prop.test.ts`, `${src}/plain.test.ts`, `${src}/slow.test.ts`, ...restored].sort(),
    alone: altering,
  });
});

it('the quick unit tests are without property tests and slow files', () => {
  expect(quickUnits(root).sort()).toEqual([...altering, ...restored, `${src}/plain.test.ts`].sort());
});
