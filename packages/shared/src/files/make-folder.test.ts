import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { FolderNotMade, makeFolder } from './make-folder.ts';

describe('a made folder', () => {
  const root = mkdtempSync(join(tmpdir(), 'make-folder-'));
  afterAll(() => rmSync(root, { recursive: true }));

  it('is made with those above it, for its user only, and may exist already', () => {
    const path = join(root, 'a/b/c');
    for (let times = 0; times < 2; times++) makeFolder(path);
    for (const folder of [join(root, 'a'), join(root, 'a/b'), path])
      expect(statSync(folder).mode & 0o777).toBe(0o700);
    symlinkSync(path, join(root, 'link'));
    makeFolder(join(root, 'link'));
    makeFolder('/');
  });

  it('that cannot be made is refused with variable, path and reason', () => {
    writeFileSync(join(root, 'file'), '');
    for (const [path, code] of [
      [join(root, 'file'), 'EEXIST'],
      [join(root, 'file/below'), 'ENOTDIR'],
    ] as const) {
      const message = `DATA_DIR: cannot make the data folder ${path} (${code})`;
      expect(() => makeFolder(path, 'DATA_DIR')).toThrow(new FolderNotMade(message));
    }
    expect(() => makeFolder(join(root, 'file'))).toThrow(
      `cannot make the folder ${join(root, 'file')} (EEXIST)`,
    );
  });

  it.runIf(existsSync('/proc/self'))('is refused at once where the system can make none', () => {
    for (const path of ['/proc/x', '/proc/x/y'])
      expect(() => makeFolder(path, 'DATA_DIR')).toThrow(
        `DATA_DIR: cannot make the data folder ${path} (ENOENT)`,
      );
  });
});
