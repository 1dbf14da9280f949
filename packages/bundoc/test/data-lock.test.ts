import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { DataFolderInUse, lockDataFolder } from '../src/project/data-lock.ts';

const folder = mkdtempSync(join(tmpdir(), 'bundoc-lock-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A process that holds the lock until it is killed. */
async function holder() {
  const script = `
    const { lockDataFolder } = await import(${JSON.stringify(new URL('../src/project/data-lock.ts', import.meta.url).href)});
    globalThis.lock = lockDataFolder(${JSON.stringify(folder)});
    console.log('locked');
    setInterval(() => {}, 1000);`;
  const child = spawn(
    process.execPath,
    ['--input-type=module', '--conditions=@bundoc/source', '-e', script],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(child.stdout, 'data');
  return child;
}

describe('the lock of the data folder', () => {
  it('names the folder that it cannot be taken of', () => {
    const none = join(folder, 'none');
    expect(() => lockDataFolder(none)).toThrow(
      expect.objectContaining({ message: expect.stringContaining(`(${none}`) }),
    );
  });

  it('refuses a second process by a message that names the first, and is free the moment that one is killed', async () => {
    const child = await holder();
    expect(() => lockDataFolder(folder)).toThrow(DataFolderInUse);
    expect(() => lockDataFolder(folder)).toThrow(new RegExp(`process ${child.pid} on `));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const lock = lockDataFolder(folder);
    lock[Symbol.dispose]();
    expect(existsSync(join(folder, 'lock-holder.json'))).toBe(false);
  });

  it('that is damaged is not taken for another process', () => {
    const damaged = mkdtempSync(join(tmpdir(), 'bundoc-lock-'));
    writeFileSync(join(damaged, 'lock.sqlite'), 'no database, and long enough to be looked at'.repeat(100));
    expect(() => lockDataFolder(damaged)).toThrow(/cannot be taken: file is not a database/);
    rmSync(damaged, { recursive: true });
  });

  it('is given back when it is disposed', () => {
    lockDataFolder(folder)[Symbol.dispose]();
    lockDataFolder(folder)[Symbol.dispose]();
  });
});
