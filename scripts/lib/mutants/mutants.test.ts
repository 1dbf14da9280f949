import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { copyRepository, judge } from './judge.mjs';
import { type Mutant, mutantsOf, mutate, productFiles, sample } from './make.mjs';
import { relatedTests } from './related.mjs';

const FILE = 'packages/bundoc/src/a.ts';

/** The sources with each mutant of a source. */
const changed = (source: string) => mutantsOf(source, FILE).map((mutant) => mutate(source, mutant));
const signal = new AbortController().signal;
const TESTS = ['packages/bundoc/src/a.test.ts', 'test/a.test.ts', 'test/containers/a.test.ts'] as const;

/** A folder with these files, until the end of the test. */
function folderOf(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'mutants-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

it('every operator creates its mutants of a source, each with one changed place', () => {
  expect(changed('f(a < b);')).toEqual([';', 'f(a <= b);', 'f(a >= b);']);
  expect(changed('const x = a && !b;')).toEqual(['const x = a || !b;', 'const x = a && b;']);
  expect(changed('const x = n + 1;')).toEqual(['const x = n - 1;', 'const x = n + 2;']);
  expect(changed('for (;;) if (a) break;')).toEqual(['for (;;) if (!(a)) break;', 'for (;;) if (a) ;']);
  expect(changed('if (a) throw true;')).toEqual(['if (!(a)) throw true;', 'if (a) ;', 'if (a) throw false;']);
  expect(changed('const x = a === b ? c : d;')).toEqual([
    'const x = !(a === b) ? c : d;',
    'const x = a !== b ? c : d;',
  ]);
});

it('types, texts, log lines and tuning constants have no mutants', () => {
  for (const source of [
    'type A = 1 | true;',
    'const o = { description: a + b, timeoutMs: 5 };',
    'log.warn({ isOver: true });',
    'const RETRY_MS = 5 + 1;',
    'const x = `a` + "b";',
    "import { a } from './a.ts';",
  ])
    expect(mutantsOf(source, FILE), source).toEqual([]);
});

it('a mutant names its line, the original text and the new text', () => {
  expect(mutantsOf('f;\n  const é = "é" === b; // ===\n', FILE)).toEqual([
    expect.objectContaining({
      file: FILE,
      line: 2,
      lineText: 'const é = "é" === b; // ===',
      operator: 'comparison',
      before: '===',
      after: '!==',
    }),
  ]);
});

it('a mutant cannot be applied to another source', () => {
  const [mutant] = mutantsOf('a < b;', FILE) as [Mutant];
  expect(() => mutate('b > a;', mutant)).toThrow('another source');
});

it('a seed always gives the same sample, and another seed a different one', () => {
  const all = mutantsOf('f(a < b, a + b);\n'.repeat(100), FILE);
  const drawn = sample(all, 50, 7);
  expect(sample(all, 50, 7)).toEqual(drawn);
  expect(new Set(drawn).size).toBe(50);
  expect(sample(all, 50, 8)).not.toEqual(drawn);
  expect(new Set(sample(all, 1_000, 7))).toEqual(new Set(all));
});

it('a change of the code does not affect the sample of other lines', () => {
  const lines = Array.from({ length: 100 }, (_, at) => `f(a${at} < b);`);
  const textsOf = (source: string) =>
    sample(mutantsOf(source, FILE), 50, 7).map(({ lineText, after }) => `${lineText} ${after}`);
  const before = textsOf(lines.join('\n'));
  const after = textsOf(['g(c);', ...lines].join('\n'));
  expect(before.filter((text) => !after.includes(text)).length).toBeLessThanOrEqual(1);
});

it('no test, conformance suite or test helper is mutated', () => {
  const names = ['a.ts', 'a.test.ts', 'testing/b.ts', 'store-conformance.ts', 'openapi/c.ts'];
  const root = folderOf(Object.fromEntries(names.map((name) => [`packages/shared/src/${name}`, ''])));
  expect(productFiles(root)).toEqual(['packages/shared/src/a.ts']);
});

it('the tests of a file are those that import it directly or indirectly, the nearest and most alike first', () => {
  const files = {
    'packages/bunkms/src/queries/c.ts': '',
    'packages/bunkms/src/d.ts': "import './queries/c.ts';",
    'packages/bunkms/src/d.test.ts': "import './d.ts';",
    'packages/bunkms/test/e.test.ts': "import '../src/d.ts';",
    'packages/bunkms/test/query.test.ts': "import './helper.ts';",
    'packages/bunkms/test/helper.ts': "import '../src/d.ts';",
    'packages/bunkms/test/far.test.ts': "import './helper.ts';",
    'packages/shared/src/a.ts': '',
    'packages/shared/src/a.test.ts': "import { a } from './a.ts';",
    'packages/bundoc/src/b.ts': "import {\n  a,\n} from '@bundoc/shared/a';",
    'packages/bundoc/src/b.test.ts': "import { b } from './b.ts';",
    'packages/bundoc/src/thread.ts': `new Worker(new URL(\`./b\${extension}\`, import.meta.url));`,
    'test/thread.test.ts': "import '../packages/bundoc/src/thread.ts';",
    'test/types.test.ts': "import type { A } from '@bundoc/shared/a';",
    'test/other.test.ts': '',
  };
  const testsOf = relatedTests(folderOf(files));
  expect(testsOf('packages/shared/src/a.ts')).toEqual([
    'packages/shared/src/a.test.ts',
    'packages/bundoc/src/b.test.ts',
    'test/thread.test.ts',
  ]);
  // A common word counts like an import less.
  expect(testsOf('packages/bunkms/src/queries/c.ts').slice(-2)).toEqual([
    'packages/bunkms/test/query.test.ts',
    'packages/bunkms/test/far.test.ts',
  ]);
});

it('a mutant is only in the copy, and only while its tests run, even when they throw', async () => {
  const source = 'export const a = b < c;\n';
  const root = folderOf({ [FILE]: source, 'node_modules/.pnpm/x': 'x' });
  const [mutant] = mutantsOf(source, FILE) as [Mutant];
  using copy = copyRepository(root);
  const read = (folder: string) => readFileSync(join(folder, FILE), 'utf8');
  const judged = judge(copy.root, mutant, TESTS, signal, async () => {
    expect(read(copy.root)).toBe('export const a = b <= c;\n');
    expect(read(root)).toBe(source);
    throw new Error('stopped');
  });
  await expect(judged).rejects.toThrow('stopped');
  expect(read(copy.root)).toBe(source);
  expect(readFileSync(join(copy.root, 'node_modules/.pnpm/x'), 'utf8')).toBe('x');
});

it('a mutant is caught by what fails with it and passes without it', async () => {
  const source = 'export const a = b < c;\n';
  const root = folderOf({ [FILE]: source });
  const [mutant] = mutantsOf(source, FILE) as [Mutant];
  const ran: string[] = [];
  /** The verdict when these files fail, or hang, with and without the mutant. */
  const judged = (mutated: readonly string[], unmutated: readonly string[], hangs = false) =>
    judge(root, mutant, TESTS, signal, async (_root, files) => {
      ran.push(...files);
      const failing = readFileSync(join(root, FILE), 'utf8') === source ? unmutated : mutated;
      const file = files.find((one) => failing.includes(one));
      if (file === undefined) return undefined;
      return hangs ? { by: 'tests do not end' } : { by: `${file}: why`, file };
    });
  const [unit, integration] = TESTS;
  expect(await judged([], [])).toBeUndefined();
  expect(ran).toEqual([unit, integration]);
  expect(await judged([unit], [])).toBe(`${unit}: why`);
  expect(await judged([unit], [unit])).toBeUndefined();
  expect(await judged(TESTS, [unit])).toBe(`${integration}: why`);
  expect(await judged([integration], [], true)).toBe('tests do not end');
  expect(await judged([integration], [integration], true)).toBeUndefined();
});
