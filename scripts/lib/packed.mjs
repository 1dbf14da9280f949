import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { UserError } from './root.mjs';
import { mustRun, outputOf } from './run.mjs';
import { PNPM } from './workspace.mjs';

const LISTENS = { bunkms: 'listening', bundoc: 'Bundoc is listening' };

/**
 * Installs both services from tarballs into an empty folder, with production dependencies only.
 * @param {{ tarballs: string, folder: string, env: NodeJS.ProcessEnv, signal?: AbortSignal }} options
 */
export async function installPacked({ tarballs, folder, env, signal }) {
  const file = (name) => {
    const [path] = globSync(join(tarballs, `bundoc-${name}-*.tgz`));
    if (path === undefined) throw new UserError(`${tarballs} has no tarball of ${name}`);
    return `file:${path}`;
  };
  const dependencies = { '@bundoc/bundoc': file('bundoc'), '@bundoc/bunkms': file('bunkms') };
  // The tarballs depend on these by version, which no registry has before the release.
  const overrides = {
    '@bundoc/shared': file('shared'),
    '@bundoc/client': file('client'),
    '@bundoc/console': file('console'),
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies }));
  writeFileSync(join(folder, 'pnpm-workspace.yaml'), JSON.stringify({ overrides }));
  await mustRun('npx', ['-y', PNPM, 'install', '--prod', '--prefer-offline', '--no-frozen-lockfile'], {
    cwd: folder,
    env: { ...env, CI: 'true' },
    signal,
  });
}

/**
 * An installation of both services from tarballs, with a KEK, data and tokens below one folder.
 * @param {{ execPath: string, folder: string, place: string, env: NodeJS.ProcessEnv }} options `folder`:
 *   the installation; `place`: the data
 */
export function packedInstallation({ execPath, folder, place, env }) {
  const path = (name, ...rest) => join(folder, 'node_modules', '@bundoc', name, 'dist', ...rest);
  const tokenFile = join(place, 'token');
  const kmsEnv = {
    PATH: env.PATH,
    BUNKMS_DATA_DIR: join(place, 'kms'),
    BUNKMS_KEK_FILE: join(place, 'kek'),
    BUNKMS_PORT: '0',
    BUNKMS_INTERNAL_PORT: '0',
    BUNKMS_DRAIN_MS: '0',
  };
  const bunkms = (...args) =>
    outputOf(execPath, [path('bunkms', 'cli', 'main.js'), ...args], { cwd: place, env: kmsEnv });
  return {
    tokenFile,
    bunkms,
    version: (name) =>
      outputOf(execPath, [path(name, 'cli', 'main.js'), '--version'], { cwd: place, env: {} }),
    startKms: () =>
      start({ name: 'bunkms', execPath, main: path('bunkms', 'main.js'), cwd: place, env: kmsEnv }),
    startBundoc: (kmsUrl) =>
      start({
        name: 'bundoc',
        execPath,
        main: path('bundoc', 'main.js'),
        cwd: place,
        env: {
          PATH: env.PATH,
          BUNDOC_DATA_DIR: join(place, 'data'),
          BUNDOC_PORT: '0',
          BUNDOC_DRAIN_MS: '0',
          // Small, because it is archived.
          BUNDOC_LOG_BYTES: String(64 * 1_048_576),
          BUNDOC_KMS_URL: kmsUrl,
          BUNDOC_KMS_TOKEN_FILE: tokenFile,
        },
      }),
  };
}

/**
 * Starts a service and waits until it listens. @returns the log record of that, and a function to stop it.
 */
async function start({ name, execPath, main, cwd, env }) {
  const child = spawn(execPath, ['--disable-sigusr1', main], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  let log = '';
  const record = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      log += `${line}\n`;
      if (line.includes(`"msg":"${LISTENS[name]}"`)) resolve(JSON.parse(line));
    });
    void closed.then(() => reject(new UserError(`${name} exited before it listened:\n${log}`)));
  });
  return {
    record,
    /** Sends SIGTERM. @throws UserError when it does not stop in order. */
    stop: async () => {
      child.kill('SIGTERM');
      const [code] = await closed;
      if (code !== 0) throw new UserError(`${name} did not stop in order:\n${log}`);
    },
    kill: async () => {
      child.kill('SIGKILL');
      await closed;
    },
  };
}
