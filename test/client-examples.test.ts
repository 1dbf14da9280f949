import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from './support/compiler.ts';

const client = join(import.meta.dirname, '../packages/client/src');

/** A declaration of the client with the doc comment before it. */
interface Documented {
  readonly name: string;
  readonly comment: string;
}

const commentAt = (indent: string) => String.raw`(?:^${indent}/\*\*((?:(?!\*/)[\s\S])*)\*/\n)?`;
const CLASS = new RegExp(`${commentAt('')}^export class (\\w+)`, 'gm');
const FUNCTION = new RegExp(`${commentAt('')}^export function (\\w+)`, 'gm');
/** Private members have names that begin with #. */
const METHOD = new RegExp(
  `${commentAt('  ')}^  (?:async )?\\*?(?!constructor\\b)([a-z]\\w*)(?:<[^(]*>)?\\(`,
  'gm',
);

function documented(file: string, declaration: RegExp): Documented[] {
  const text = readFileSync(join(client, file), 'utf8');
  return [...text.matchAll(declaration)].map(([, comment = '', name = '']) => ({
    name: `${file} ${name}`,
    comment,
  }));
}

function exampleOf({ comment }: Documented): string | undefined {
  const lines = comment.split('\n').map((line) => line.replace(/^ *\* ?/, ''));
  const [, code] = /^@example\n```ts\n([\s\S]*?)^```$/m.exec(lines.join('\n')) ?? [];
  return code;
}

/** What the examples of the client speak of. */
const GIVEN = `
import type { Bundoc, Project } from '@bundoc/client';
import type { Collection } from '@bundoc/client/collection';
declare global {
  const bundoc: Bundoc;
  const project: Project;
  const notes: Collection<{ title: string; stars?: number }>;
}
`;

/** The errors of the compiler, each program compiled as a module of its own. */
function faultsOf(programs: readonly string[]): readonly string[] {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-examples-'));
  const options = {
    lib: ['es2024', 'dom', 'dom.iterable'],
    paths: { '@bundoc/client': [join(client, 'client.ts')], '@bundoc/client/*': [join(client, '*.ts')] },
  };
  try {
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    writeFileSync(join(folder, 'given.ts'), GIVEN);
    for (const [n, program] of programs.entries())
      writeFileSync(join(folder, `example-${n}.ts`), `${program}\nexport {};\n`);
    compile(folder, options);
    return [];
  } catch (error) {
    return (error as { stdout: string }).stdout.trim().split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('the doc comments of the client', () => {
  const named = [
    ...documented('client.ts', METHOD),
    ...documented('collection.ts', METHOD),
    ...documented('client.ts', CLASS).filter(({ name }) => name.endsWith(' Bundoc')),
    ...documented('changes.ts', CLASS).filter(({ name }) => name.endsWith(' Following')),
    ...documented('document.ts', CLASS),
    ...documented('error.ts', CLASS),
    ...documented('error.ts', FUNCTION).filter(({ name }) => name.endsWith(' hasCode')),
  ];

  it('have an example for every public method of projects and collections', () => {
    const methods = named.map(({ name }) => name);
    for (const name of [
      'client.ts move',
      'client.ts projects',
      'collection.ts get',
      'collection.ts query',
      'collection.ts checkSchema',
    ])
      expect(methods).toContain(name);
    expect(methods.length).toBeGreaterThan(30);
    expect(named.filter((one) => exampleOf(one) === undefined).map(({ name }) => name)).toEqual([]);
  });

  it('have examples that compile', () => {
    expect(faultsOf(named.map((one) => exampleOf(one) ?? ''))).toEqual([]);
  });

  it('would show an example that does not compile', () => {
    const [fault, ...others] = faultsOf(["await notes.put('first', { name: 'Hello' });"]);
    expect([fault, others]).toEqual([expect.stringContaining("'name' does not exist"), []]);
  });
});
