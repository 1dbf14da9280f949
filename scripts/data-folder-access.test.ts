import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');

/**
 * Product files that use the file system directly, with the reason why this does not concern a data folder of
 * Bundoc.
 */
const ALLOWED: Readonly<Record<string, string>> = {
  'packages/shared/src/files/data-folder.ts':
    'the disk module: holds a data folder open and gives access to its entries',
  'packages/shared/src/files/small-files.ts': 'the disk module: synchronous access to small files',
  'packages/bundoc/src/engine/files/disk/entries.ts': 'the disk module: entries of an open folder',
  'packages/bundoc/src/engine/files/disk/node-disk.ts': 'the disk module: the port on the real disk',
  'packages/bundoc/src/engine/files/disk/open-folders.ts':
    'the disk module: closes folders of the writer thread',
  'packages/bundoc/src/engine/files/disk/write-worker.ts': 'the disk module: the writer thread',
  'packages/bundoc/src/engine/files/disk/filesystem-sync.ts':
    'the disk module: syncs the file system of a checked folder',
  'packages/bundoc/src/engine/files/log/node-log-disk.ts':
    'the disk module of the log: reads and closes descriptors that the data folder opened',
  'packages/bundoc/src/engine/files/log/log-worker.ts':
    'the disk module of the log: the thread that writes to these descriptors',
  'packages/bundoc/src/engine/postgres/database/schema.ts': 'the schema of this build',
  'packages/bundoc/src/kms/service-token.ts': 'the file of the service token, which the administrator names',
  'packages/bundoc/src/cli/backup.ts': 'backups that the user of the command names',
  'packages/bundoc/src/cli/backup-folder.ts': 'a folder of backups that the user of the command names',
  'packages/bundoc/src/operations/backup-manifest.ts': 'the manifest of such a folder',
  'packages/bundoc/src/cli/bulk-export.ts': 'exports that the user of the command names',
  'packages/bundoc/src/cli/bulk-import.ts': 'imports that the user of the command names',
  'packages/bundoc/src/cli/profiles.ts': 'the profiles of the user of the command',
  'packages/bundoc/src/engine/files/archive/restored-folder.ts':
    'a new folder that the user of the command names',
  'packages/bundoc/src/cli/archive-target.ts': 'the same folder',
  'packages/bundoc/src/cli/archive-temporary.ts': 'makes and removes a temporary folder',
  'packages/bundoc/src/operations/resume-file.ts':
    'a file beside an import that the user of the command names',
};

const OPENS_FILES = /from '(?:node:)?(?:fs|fs\/promises|sqlite)'|import\('(?:node:)?fs/;
/** An empty database that serves as a lock; its path comes from the disk module. */
const LOCK = 'packages/bundoc/src/engine/files/data-lock.ts';

const product = [
  ...globSync('packages/bundoc/src/**/*.ts', { cwd: root }),
  'packages/shared/src/files/data-folder.ts',
  'packages/shared/src/files/small-files.ts',
  'packages/bunkms/src/recovery/project-keys.ts',
  'packages/bunkms/src/recovery/recover.ts',
].filter((path) => !/\.test\.ts$|\.prop\.test\.ts$|\/testing\//.test(path));

const opening = product.filter((path) => OPENS_FILES.test(readFileSync(join(root, path), 'utf8')));

describe('a data folder of Bundoc', () => {
  it('is accessed only through the disk module', () => {
    expect(product.length).toBeGreaterThan(100);
    expect(opening.filter((path) => ALLOWED[path] === undefined && path !== LOCK)).toEqual([]);
  });

  it('has a lock whose path comes from the disk module', () => {
    const lock = readFileSync(join(root, LOCK), 'utf8');
    expect(lock.match(/new DatabaseSync\(.*\)/g)).toEqual(['new DatabaseSync(folder.entry(LOCK_FILE))']);
    expect(lock).not.toMatch(/node:fs/);
  });

  it('has no unnecessary exceptions', () => {
    expect(Object.keys(ALLOWED).filter((path) => !opening.includes(path))).toEqual([]);
  });
});
