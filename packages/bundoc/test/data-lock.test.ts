import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnNode } from '@bundoc/shared/testing/node-process';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { DataFolderInUse, lockDataFolder } from '../src/engine/files/data-lock.ts';

const folder = mkdtempSync(join(tmpdir(), 'bundoc-lock-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A folder that the test fills. */
function hostile(prefix: string): string {
  const directory = mkdtempSync(join(tmpdir(), prefix));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

const makePipe = (path: string) => execFileSync('mkfifo', [path]);

const takeLock = (of: string) => `
    const { lockDataFolder } = await import(${JSON.stringify(new URL('../src/engine/files/data-lock.ts', import.meta.url).href)});
    globalThis.lock = lockDataFolder(${JSON.stringify(of)});`;

/** A process that holds the lock until it is killed. */
async function holder() {
  const script = `${takeLock(folder)}
    console.log('locked');
    setInterval(() => {}, 1000);`;
  const child = spawnNode(['--input-type=module', '-e', script], {});
  await once(child.stdout, 'data');
  return child;
}

describe('the lock of the data folder', () => {
  it('names the folder when it cannot be taken', () => {
    const none = join(folder, 'none');
    expect(() => lockDataFolder(none)).toThrow(
      expect.objectContaining({ message: expect.stringContaining(`(${none}`) }),
    );
  });

  it('refuses a second process with a message that names the first, and is free the moment that one is killed', async () => {
    const child = await holder();
    expect(() => lockDataFolder(folder)).toThrow(DataFolderInUse);
    expect(() => lockDataFolder(folder)).toThrow(
      new RegExp(
        `^the data folder ${folder} is in use .* \\(process ${child.pid} on .*: stop that process, or name another folder in BUNDOC_DATA_DIR$`,
      ),
    );
    child.kill('SIGKILL');
    await once(child, 'exit');
    const lock = lockDataFolder(folder);
    lock[Symbol.dispose]();
    expect(existsSync(join(folder, 'lock-holder.json'))).toBe(false);
  });

  it('is not reported as another process when it is damaged', () => {
    const damaged = mkdtempSync(join(tmpdir(), 'bundoc-lock-'));
    writeFileSync(join(damaged, 'lock.sqlite'), 'no database, and long enough to be looked at'.repeat(100));
    expect(() => lockDataFolder(damaged)).toThrow(
      /cannot be taken: lock.sqlite has 4400 bytes, and at most 0/,
    );
    rmSync(damaged, { recursive: true });
  });

  it('follows no link, waits for no pipe, and gives SQLite no foreign file, whichever of its files is replaced', () => {
    const outside = join(hostile('bundoc-lock-outside-'), 'canary');
    writeFileSync(outside, 'canary');
    const linked = hostile('bundoc-lock-');
    symlinkSync(outside, join(linked, 'lock.sqlite'));
    expect(() => lockDataFolder(linked)).toThrow(/lock.sqlite is not a regular file/);
    const piped = hostile('bundoc-lock-');
    makePipe(join(piped, 'lock.sqlite'));
    expect(() => lockDataFolder(piped)).toThrow(/lock.sqlite is not a regular file/);
    const beside = hostile('bundoc-lock-');
    makePipe(join(beside, 'lock.sqlite-journal'));
    symlinkSync(outside, join(beside, 'lock.sqlite-wal'));
    symlinkSync(outside, join(beside, 'lock-holder.json'));
    lockDataFolder(beside)[Symbol.dispose]();
    expect(readdirSync(beside)).toEqual(['lock.sqlite']);
    expect(readFileSync(outside, 'utf8')).toBe('canary');
    mkdirSync(join(beside, 'lock-holder.json'));
    lockDataFolder(beside)[Symbol.dispose]();
    lockDataFolder(beside)[Symbol.dispose]();
  });

  it('names nobody when a pipe replaces the note', async () => {
    const child = await holder();
    rmSync(join(folder, 'lock-holder.json'));
    makePipe(join(folder, 'lock-holder.json'));
    expect(() => lockDataFolder(folder)).toThrow(/in use by another Bundoc process: stop/);
    child.kill('SIGKILL');
    await once(child, 'exit');
    rmSync(join(folder, 'lock-holder.json'));
  });

  it('stays taken after a second attempt by the same process, which does not free it', async () => {
    const own = hostile('bundoc-lock-');
    using _lock = lockDataFolder(own);
    expect(() => lockDataFolder(own)).toThrow(DataFolderInUse);
    expect(() =>
      execFileSync(process.execPath, ['--input-type=module', '-e', takeLock(own)], { stdio: 'pipe' }),
    ).toThrow(/in use by another Bundoc process/);
  });

  it('is freed when it is disposed', () => {
    lockDataFolder(folder)[Symbol.dispose]();
    lockDataFolder(folder)[Symbol.dispose]();
  });
});
