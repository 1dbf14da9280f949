import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { build, installPurpose, prepare } from './workspace.mjs';

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

describe('the install of the workspace', () => {
  const LOCK = 'lockfileVersion: 9\n';
  let root: string;
  const put = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
    chmodSync(join(root, path), 0o755);
  };
  const install = (path: string) => put(join('node_modules', path, 'package.json'), '{}');
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'bundoc-install-'));
    mkdirSync(join(root, 'packages', 'console'), { recursive: true });
    put('packages/console/build.mjs', '');
    put('package.json', JSON.stringify({ dependencies: { lib: '1' }, devDependencies: { tester: '1' } }));
    put('pnpm-lock.yaml', LOCK);
    put('pnpm-workspace.yaml', '');
    put('node_modules/.bin/tsc', '#!/bin/sh\n');
    put('bin/npx', `#!/bin/sh\necho "$*" >> '${root}/installs'\n`);
  });
  afterEach(() => rmSync(root, { recursive: true }));

  /** Prepares the workspace for `npm start`. @returns the arguments of its installs. */
  async function prepareToRun(): Promise<string[]> {
    const PATH = `${join(root, 'bin')}:${process.env['PATH']}`;
    await prepare(root, { env: { ...process.env, PATH } }, 'run');
    const log = join(root, 'installs');
    return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  }

  it('takes only what running needs in a fresh clone, once', async () => {
    expect(await prepareToRun()).toEqual([expect.stringContaining('install --prod')]);
    install('lib');
    expect(await prepareToRun()).toHaveLength(1);
  });

  it('leaves a whole installation by pnpm as it is', async () => {
    install('lib');
    install('tester');
    put('node_modules/.pnpm/lock.yaml', LOCK);
    expect(await prepareToRun()).toEqual([]);
  });

  it.each([
    ['of an earlier lockfile', () => put('node_modules/.pnpm/lock.yaml', 'lockfileVersion: 8\n')],
    ['that was interrupted', () => rmSync(join(root, 'node_modules', 'lib'), { recursive: true })],
  ])('completes a whole installation %s, and keeps the tools of tests', async (_what, change) => {
    install('lib');
    install('tester');
    put('node_modules/.pnpm/lock.yaml', LOCK);
    change();
    const installs = await prepareToRun();
    expect(installs).toEqual([expect.stringMatching(/ install --frozen/)]);
    expect(installs).toEqual([expect.not.stringContaining('--prod')]);
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
