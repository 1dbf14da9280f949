import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { build, installPurpose } from './workspace.mjs';

describe('the build of the workspace', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'bundoc-build-'));
    mkdirSync(join(root, 'node_modules', '.bin'), { recursive: true });
    vi.spyOn(console, 'error').mockReturnValue();
  });
  afterEach(() => {
    vi.restoreAllMocks();
    rmSync(root, { recursive: true });
  });

  /** Builds with a compiler that accepts only these arguments. @returns its calls. */
  async function buildWith(taken: string): Promise<string[]> {
    const tsc = join(root, 'node_modules', '.bin', 'tsc');
    writeFileSync(tsc, `#!/bin/sh\necho "$*" >> '${root}/runs'\n[ "$*" = '${taken}' ]\n`);
    chmodSync(tsc, 0o755);
    await build(root, { cwd: root, env: process.env });
    return readFileSync(join(root, 'runs'), 'utf8').trim().split('\n');
  }

  it('compiles only changed sources', async () => {
    expect(await buildWith('-b')).toEqual(['-b']);
  });

  it('is repeated from scratch when stale declarations make it fail', async () => {
    expect(await buildWith('-b --force')).toEqual(['-b', '-b --force']);
  });

  it('fails when the sources do', async () => {
    await expect(buildWith('nothing')).rejects.toThrow('failed (exit code 1)');
  });
});

it('an install for `run` keeps the dependencies of tests if they are installed', () => {
  const root = mkdtempSync(join(tmpdir(), 'bundoc-install-'));
  try {
    const put = (path: string, manifest: object) => {
      mkdirSync(join(root, path), { recursive: true });
      writeFileSync(join(root, path, 'package.json'), JSON.stringify(manifest));
    };
    mkdirSync(join(root, 'packages'));
    put('.', { dependencies: { compiler: '1' }, devDependencies: { tester: '1' } });
    put('node_modules/compiler', {});
    expect([installPurpose(root, 'run'), installPurpose(root, 'test')]).toEqual(['run', 'test']);
    put('node_modules/tester', {});
    expect(installPurpose(root, 'run')).toBe('test');
  } finally {
    rmSync(root, { recursive: true });
  }
});
