import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cacheDir } from './node-runtime.mjs';
import { mustRun, run } from './run.mjs';

/** The one pnpm that is known to take the lockfile; the Dockerfile names the same. */
export const PNPM = 'pnpm@12.4.2';

/**
 * TypeScript and types are dependencies of the workspace, as `npm start` compiles; what only tests need is a
 * devDependency.
 */
const INSTALLS = {
  run: ['install', '--prod', '--frozen-lockfile', '--prefer-offline'],
  test: ['install', '--frozen-lockfile', '--prefer-offline'],
};

const stampOf = (fingerprint, purpose) => `${fingerprint} ${purpose}`;

/**
 * Installs and builds the workspace, each only as far as needed. All output goes to standard error.
 * @param {string} root
 * @param {{ env: NodeJS.ProcessEnv }} node
 * @param {'run' | 'test'} purpose `run` installs what the services and their build need; `test` also what
 * checks and tests need.
 * @param {AbortSignal} [signal]
 */
export async function prepare(root, node, purpose, signal) {
  const options = { cwd: root, env: node.env, signal };
  const stamp = join(cacheDir(root), 'installed');
  const wanted = installFingerprint(root);
  if (!isInstalled(root, stamp, wanted, purpose)) {
    rmSync(stamp, { force: true });
    // CI=true: never ask whether node_modules of another pnpm may be replaced; there may be nobody to answer.
    await mustRun('npx', ['-y', PNPM, ...INSTALLS[purpose]], {
      ...options,
      env: { ...node.env, CI: 'true' },
    });
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(stamp, stampOf(wanted, purpose));
  }
  await build(root, options);
  // Does nothing when the console is built of these very sources.
  await mustRun('node', [join(root, 'packages', 'console', 'build.mjs')], options);
}

/**
 * Compiles what has changed. TypeScript 7 may take declarations for unchanged that are not (a type that is
 * inferred from a union which grew in another file), and then finds errors in sources that have none: what
 * fails is compiled once more from nothing.
 * @param {string} root
 * @param {{ cwd: string, env: NodeJS.ProcessEnv, signal?: AbortSignal }} options
 */
export async function build(root, options) {
  const tsc = join(root, 'node_modules', '.bin', 'tsc');
  if ((await run(tsc, ['-b'], options)) === 0) return;
  console.error('The build failed. It is done once more from nothing.');
  await mustRun(tsc, ['-b', '--force'], options);
}

/**
 * Changes whenever an install could have another outcome.
 * @param {string} root
 */
function installFingerprint(root) {
  const hash = createHash('sha256').update(PNPM);
  for (const file of ['pnpm-lock.yaml', 'pnpm-workspace.yaml', ...manifests(root).map(({ file }) => file)])
    hash.update(`\0${file}\0`).update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

/**
 * True when the last install was of this lockfile, had what is needed, and nothing that it linked has gone
 * since.
 */
function isInstalled(root, stamp, wanted, purpose) {
  const installed = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  const suffices = purpose === 'test' ? ['test'] : ['run', 'test'];
  if (!suffices.some((one) => installed === stampOf(wanted, one))) return false;
  return manifests(root).every(({ directory, ...needed }) =>
    [...needed.dependencies, ...(purpose === 'test' ? needed.devDependencies : [])].every((name) =>
      existsSync(join(root, directory, 'node_modules', name, 'package.json')),
    ),
  );
}

/** The packages of the workspace, its root first, and what they depend on. */
export function manifests(root) {
  const packages = readdirSync(join(root, 'packages'))
    .sort()
    .map((name) => join('packages', name))
    .filter((directory) => existsSync(join(root, directory, 'package.json')));
  return ['.', ...packages].map((directory) => {
    const file = join(directory, 'package.json');
    const { dependencies = {}, devDependencies = {} } = JSON.parse(readFileSync(join(root, file), 'utf8'));
    return {
      ...{ directory, file },
      dependencies: Object.keys(dependencies),
      devDependencies: Object.keys(devDependencies),
    };
  });
}
