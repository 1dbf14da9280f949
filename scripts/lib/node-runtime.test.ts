import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { isAtLeast, lowestMajor, withoutNpmVariables, withPathFirst } from './node-runtime.mjs';
import { root } from './root.mjs';
import { PNPM } from './workspace.mjs';

describe('the Node that runs the project', () => {
  it.each([
    ['24.0.0', true],
    ['v25.1.0', true],
    ['20.20.2', false],
    ['9.9.9', false],
    ['', false],
    [undefined, false],
  ])('%s is new enough for 24: %s', (version, expected) => {
    expect(isAtLeast(version, 24)).toBe(expected);
  });

  it.each([
    ['24.0.0', 0, ''],
    ['20.20.2', 1, 'npm run build: Node.js 24 or newer is needed, and this is 20.20.2: see '],
  ])('is named by the build when it is too old: %s', (version, code, stderr) => {
    const other = `data:text/javascript,Object.defineProperty(process.versions,"node",{value:"${version}"})`;
    const script = join(root, 'scripts', 'require-node.mjs');
    const ended = spawnSync(process.execPath, ['--import', other, script], { encoding: 'utf8' });
    expect([ended.status, ended.stderr.slice(0, stderr.length || undefined)]).toEqual([code, stderr]);
  });

  it('reads the engines of package.json, and refuses an unknown form of range', () => {
    const { engines } = JSON.parse(readFileSync(join(root, 'packages/bunkms/package.json'), 'utf8'));
    expect(lowestMajor(engines.node)).toBeGreaterThanOrEqual(24);
    expect(() => lowestMajor('^24 || ^26')).toThrow('engines.node');
  });

  it('removes what npm set for its script, but keeps what the user configured', () => {
    const env = {
      npm_lifecycle_event: 'start',
      npm_config_prefix: '/x',
      npm_config_registry: 'http://127.0.0.1:4873',
      NPM_CONFIG_CAFILE: '/ca',
      HOME: '/h',
    };
    expect(withoutNpmVariables(env)).toEqual({
      npm_config_registry: 'http://127.0.0.1:4873',
      NPM_CONFIG_CAFILE: '/ca',
      HOME: '/h',
    });
  });

  it('puts a directory first in PATH, even when PATH was unset', () => {
    expect(withPathFirst({ PATH: '/bin' }, '/n24')).toEqual({ PATH: '/n24:/bin' });
    expect(withPathFirst({}, '/n24')).toEqual({ PATH: '/n24' });
  });
});

it('the images are built with the same pnpm as the workspace', () => {
  expect(readFileSync(join(root, 'Dockerfile'), 'utf8')).toContain(`npm install --global ${PNPM}`);
});

it('the image with optional packages has the versions that are tested', () => {
  const manifest = JSON.parse(readFileSync(join(root, 'packages/bunkms/package.json'), 'utf8'));
  const optional = Object.keys(manifest.peerDependenciesMeta);
  expect(optional).toContain('pkcs11js');
  const installed = /^RUN npm install --no-fund --no-audit (.+)$/m.exec(
    readFileSync(join(root, 'Dockerfile'), 'utf8'),
  );
  expect(installed?.[1]?.split(' ').sort()).toEqual(
    optional.map((name) => `${name}@${manifest.devDependencies[name]}`).sort(),
  );
});
