import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const SOURCES = 'packages/bundoc/src';

/** What a source imports: paths from the root for files of this repository, names for packages. */
function importsOf(path: string, source: string): string[] {
  const imports = source.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)['"]([^'"]+)['"]/g);
  return [...imports].map(([, name = '']) =>
    name.startsWith('.') ? normalize(join(dirname(path), name)) : name,
  );
}

const isTest = (path: string) => /\.test\.ts$/.test(path) || path.startsWith(`${SOURCES}/testing/`);

/** The engine that a file belongs to. */
function engineOf(path: string): string | undefined {
  return new RegExp(`^${SOURCES}/engine/([^/]+)/`).exec(path)?.[1];
}

/** The engine whose code a file is. The store of a project on files lies in `storage/embedded`, and writes to the log of `engine/files`. */
function ownerOf(path: string): string | undefined {
  return engineOf(path) ?? (path.startsWith(`${SOURCES}/storage/embedded/`) ? 'files' : undefined);
}

/** Who puts an engine into the service, or works on one by itself. */
function composesEngines(path: string): boolean {
  return new RegExp(`^${SOURCES}/(app\\.ts$|storage-[^/]+\\.ts$|cli/)`).test(path);
}

/** Packages and parts of shared that the log needs, and nothing above it. */
const OF_THE_LOG =
  /^(node:|@bundoc\/shared\/(crypto\/aead|runtime\/clock|contract\/log-folder|files\/data-folder|contract\/app-error|crypto\/random|shares\/current-share)$)/;

/** Imports that the walls between the engines forbid, a sentence for each. */
function breachesOf(path: string, source: string): string[] {
  const breaches: string[] = [];
  const owner = ownerOf(path);
  for (const target of importsOf(path, source)) {
    const engine = engineOf(target);
    if (engine !== undefined && owner !== undefined && owner !== engine)
      breaches.push(`${path} imports ${target}: an engine knows no other engine`);
    if (engine !== undefined && owner === undefined && !composesEngines(path) && !isTest(path))
      breaches.push(`${path} imports ${target}: only the composition and the commands know an engine`);
    if (isTest(target) && !isTest(path))
      breaches.push(`${path} imports ${target}: the product does not know its tests`);
    const log = `${SOURCES}/engine/files/log/`;
    if (path.startsWith(log) && !isTest(path) && !target.startsWith(log) && !OF_THE_LOG.test(target))
      breaches.push(`${path} imports ${target}: the log stands by itself`);
    if (owner !== undefined && !isTest(path) && /(^|\/)(routes|http|fastify|service)(\/|$)/.test(target))
      breaches.push(`${path} imports ${target}: no import goes up`);
  }
  return breaches;
}

describe('the walls of the engines', () => {
  const files = globSync(`${SOURCES}/**/*.ts`, { cwd: root });

  it('have something behind them', () => {
    expect(files.filter((path) => engineOf(path) === 'files').length).toBeGreaterThan(10);
  });

  it('hold', () => {
    expect(files.flatMap((path) => breachesOf(path, readFileSync(join(root, path), 'utf8')))).toEqual([]);
  });

  it.each([
    ['postgres/rows.ts', '../files/log/log.ts', 'an engine knows no other engine'],
    ['files/store.ts', '../postgres/rows.ts', 'an engine knows no other engine'],
    [
      '../service/queries.ts',
      '../engine/files/log/log.ts',
      'only the composition and the commands know an engine',
    ],
    [
      '../storage/embedded/files-engine.ts',
      '../../engine/postgres/rows.ts',
      'an engine knows no other engine',
    ],
    ['../storage/embedded/files-engine.ts', '../../service/queries.ts', 'no import goes up'],
    ['files/log/log.ts', '../../../service/queries.ts', 'no import goes up'],
    ['files/log/log.ts', 'fastify', 'no import goes up'],
    ['files/log/log.ts', '../../../storage/port.ts', 'the log stands by itself'],
    ['files/log/log.ts', '../../../testing/simulated-disk.ts', 'the product does not know its tests'],
  ])('are seen to be broken when %s imports %s', (path, target, why) => {
    const planted = normalize(`${SOURCES}/engine/${path}`);
    expect(breachesOf(planted, `import type { X } from '${target}';`).join('\n')).toContain(why);
    expect(breachesOf(planted, `const x = await import('${target}');`).join('\n')).toContain(why);
  });

  it.each([
    ['app.ts', './engine/files/log/log.ts'],
    ['storage-files.ts', './engine/files/log/log.ts'],
    ['storage-folder.ts', './engine/files/log/log.ts'],
    ['storage/embedded/open-store.ts', '../../engine/files/log/log.ts'],
    ['cli/verify.ts', '../engine/files/log/log.ts'],
  ])('let %s put an engine into its place', (path, target) => {
    expect(breachesOf(`${SOURCES}/${path}`, `import { Log } from '${target}';`)).toEqual([]);
    expect(breachesOf(`${SOURCES}/service/${path}`, `import { Log } from '../${target}';`)).toHaveLength(1);
  });

  it('let the store of a project on files write to the log', () => {
    const source = "import { Log } from '../../engine/files/log/log.ts';";
    expect(breachesOf(`${SOURCES}/storage/embedded/files-engine.ts`, source)).toEqual([]);
    expect(breachesOf(`${SOURCES}/storage/collections/defined-store.ts`, source)).toHaveLength(1);
  });
});
