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

const isTest = (path: string) =>
  /\.test\.ts$|conformance/.test(path) || path.startsWith(`${SOURCES}/testing/`);

/** The engine that a file belongs to. */
function engineOf(path: string): string | undefined {
  return new RegExp(`^${SOURCES}/engine/(files|postgres)/`).exec(path)?.[1];
}

/** Who puts an engine into the service, or works on one by itself. */
function composesEngines(path: string): boolean {
  return new RegExp(`^${SOURCES}/(app\\.ts$|cli/)`).test(path);
}

/** Packages and parts of shared that the log needs, and nothing above it. */
const OF_THE_LOG =
  /^(node:|@bundoc\/shared\/(crypto\/aead|runtime\/clock|contract\/log-folder|files\/data-folder|contract\/app-error|crypto\/random|shares\/share-key)$)/;

/** Imports that the walls between the engines forbid, a sentence for each. */
function breachesOf(path: string, source: string): string[] {
  const breaches: string[] = [];
  const owner = engineOf(path);
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

/** Arrows that are still to be turned round. */
const STILL_OPEN: readonly string[] = [
  'engine/postgres/projects/expiry-rows.ts imports engine/files/projects/expiry-marks.ts',
  'engine/postgres/projects/project-in-rows.ts imports engine/files/projects/project-reader.ts',
  'engine/postgres/projects/project-in-rows.ts imports engine/files/projects/project-stats.ts',
  'engine/postgres/projects/project-in-rows.ts imports engine/files/projects/verify-project.ts',
  'engine/postgres/projects/project-in-rows.ts imports engine/files/projects/verify.ts',
  'engine/postgres/rows/file-row.ts imports engine/files/disk/disk.ts',
  'engine/postgres/transfer/move-target.ts imports engine/files/projects/verify.ts',
  'engine/postgres/transfer/restore-rows.ts imports engine/files/transfer/restore-project.ts',
  'engine/postgres/verify/verify-entries.ts imports engine/files/projects/verify.ts',
  'engine/postgres/verify/verify-rows.ts imports engine/files/documents/document-files.ts',
  'engine/postgres/verify/verify-rows.ts imports engine/files/projects/verify.ts',
  'engine/projects.ts imports engine/postgres/rows/file-row.ts',
  'engine/set-aside.ts imports engine/files/disk/disk.ts',
  'engine/storage-engine.ts imports engine/files/disk/disk.ts',
  'engine/storage-engine.ts imports engine/files/projects/expiry-marks.ts',
  'operations/move-project.ts imports engine/files/projects/verify.ts',
  'operations/read-backup.ts imports engine/files/projects/project-reader.ts',
  'projects/clear-marks.ts imports engine/files/disk/disk.ts',
  'projects/clear-marks.ts imports engine/files/projects/moved-folder.ts',
  'projects/clear-marks.ts imports engine/postgres/database/database.ts',
  'projects/clear-marks.ts imports engine/postgres/rows/fence.ts',
  'projects/clear-marks.ts imports engine/postgres/rows/file-row.ts',
  'projects/expiry-looks.ts imports engine/files/projects/expiry-marks.ts',
  'projects/instance-manager.ts imports engine/files/projects/expiry-marks.ts',
  'service/moves.ts imports engine/files/transfer/move-source.ts',
  'service/moves.ts imports engine/postgres/database/database.ts',
  'service/moves.ts imports engine/postgres/database/migrate.ts',
  'service/moves.ts imports engine/postgres/identity-in-rows.ts',
  'service/moves.ts imports engine/postgres/transfer/move-target.ts',
];

describe('the walls of the engines', () => {
  const files = globSync(`${SOURCES}/**/*.ts`, { cwd: root });

  it('have something behind them', () => {
    expect(files.filter((path) => engineOf(path) === 'files').length).toBeGreaterThan(10);
    expect(files.filter((path) => engineOf(path) === 'postgres').length).toBeGreaterThan(10);
  });

  it('hold', () => {
    const breaches = files.flatMap((path) => breachesOf(path, readFileSync(join(root, path), 'utf8')));
    expect(breaches.map((breach) => breach.replace(/:.*/, '').replaceAll(`${SOURCES}/`, '')).sort()).toEqual(
      STILL_OPEN,
    );
  });

  it.each([
    ['postgres/rows.ts', '../files/log/log.ts', 'an engine knows no other engine'],
    ['files/store.ts', '../postgres/rows.ts', 'an engine knows no other engine'],
    [
      '../service/queries.ts',
      '../engine/files/log/log.ts',
      'only the composition and the commands know an engine',
    ],
    ['files/index.ts', '../../service/queries.ts', 'no import goes up'],
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
    ['cli/verify.ts', '../engine/files/log/log.ts'],
  ])('let %s put an engine into its place', (path, target) => {
    expect(breachesOf(`${SOURCES}/${path}`, `import { Log } from '${target}';`)).toEqual([]);
    expect(breachesOf(`${SOURCES}/service/${path}`, `import { Log } from '../${target}';`)).toHaveLength(1);
  });
});
