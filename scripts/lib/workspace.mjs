import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cacheDir, readOrEmpty } from './node-runtime.mjs';
import { mustRun, run } from './run.mjs';

/** The pnpm version for the lockfile; the Dockerfile names the same. */
export const PNPM = 'pnpm@12.4.2';

/**
 * TypeScript and types are dependencies of the workspace, because `npm start` compiles. Only test tools are
 * devDependencies.
 */
const INSTALLS = {
  run: ['install', '--prod', '--frozen-lockfile', '--prefer-offline'],
  test: ['install', '--frozen-lockfile', '--prefer-offline'],
};

const stampOf = (fingerprint, purpose) => `${fingerprint} ${purpose}`;

/**
 * Installs and builds the workspace if needed. All output goes to standard error.
 * @param {string} root
 * @param {{ env: NodeJS.ProcessEnv }} node
 * @param {'run' | 'test'} wanted `run` installs the dependencies of the services and their build; `test`
 *   also those of checks and tests.
 * @param {AbortSignal} [signal]
 */
export async function prepare(root, node, wanted, signal) {
  const purpose = installPurpose(root, wanted);
  const options = { cwd: root, env: node.env, signal };
  const stamp = join(cacheDir(root), 'installed');
  const fingerprint = installFingerprint(root);
  if (!isInstalled(root, stamp, fingerprint, purpose)) {
    rmSync(stamp, { force: true });
    // CI=true: never ask whether to replace the node_modules of another pnpm, because nobody may answer.
    await mustRun('npx', ['-y', PNPM, ...INSTALLS[purpose]], {
      ...options,
      env: { ...node.env, CI: 'true' },
    });
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(stamp, stampOf(fingerprint, purpose));
  }
  await build(root, options);
  // Does nothing when the console is already built from these sources.
  await mustRun('node', [join(root, 'packages', 'console', 'build.mjs')], options);
}

/**
 * The purpose of an install. An install for `run` would remove the dependencies of tests, so an existing one
 * for `test` stays.
 * @param {string} root
 * @param {'run' | 'test'} wanted
 */
export function installPurpose(root, wanted) {
  const hasTools = manifests(root).some(({ directory, devDependencies }) =>
    devDependencies.some((name) => existsSync(join(root, directory, 'node_modules', name, 'package.json'))),
  );
  return hasTools ? 'test' : wanted;
}

/**
 * Compiles changed sources. TypeScript 7 may treat changed declarations as unchanged (for a type inferred
 * from a union that grew in another file) and then report false errors. So a failed build is repeated from
 * scratch.
 * @param {string} root
 * @param {{ cwd: string, env: NodeJS.ProcessEnv, signal?: AbortSignal }} options
 */
export async function build(root, options) {
  const tsc = join(root, 'node_modules', '.bin', 'tsc');
  if ((await run(tsc, ['-b'], options)) === 0) return;
  console.error('The build failed. Building again from scratch.');
  await mustRun(tsc, ['-b', '--force'], options);
}

/**
 * A fingerprint of everything that affects the result of an install.
 * @param {string} root
 */
function installFingerprint(root) {
  const hash = createHash('sha256').update(PNPM);
  for (const file of ['pnpm-lock.yaml', 'pnpm-workspace.yaml', ...manifests(root).map(({ file }) => file)])
    hash.update(`\0${file}\0`).update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

/**
 * True when the last install was of this lockfile and for this purpose, and all its links still exist. An
 * install by pnpm itself leaves no stamp, but counts: another one would replace files under a running test.
 */
function isInstalled(root, stamp, fingerprint, purpose) {
  const installed = readOrEmpty(stamp);
  const suffices = purpose === 'test' ? ['test'] : ['run', 'test'];
  const isStamped = suffices.some((one) => installed === stampOf(fingerprint, one));
  if (!isStamped && !isWhole(root)) return false;
  return manifests(root).every(({ directory, ...needed }) =>
    [...needed.dependencies, ...(purpose === 'test' ? needed.devDependencies : [])].every((name) =>
      existsSync(join(root, directory, 'node_modules', name, 'package.json')),
    ),
  );
}

/** True when pnpm has installed all of this lockfile. Its copy of the lockfile leaves out what it did not. */
function isWhole(root) {
  const wanted = readOrEmpty(join(root, 'pnpm-lock.yaml'));
  return wanted !== '' && wanted === readOrEmpty(join(root, 'node_modules', '.pnpm', 'lock.yaml'));
}

/** The manifests of the workspace, its root first. */
export function manifests(root) {
  const packages = readdirSync(join(root, 'packages'))
    .sort()
    .map((name) => join('packages', name))
    .filter((directory) => existsSync(join(root, directory, 'package.json')));
  return ['.', ...packages].map((directory) => {
    const file = join(directory, 'package.json');
    const { dependencies = {}, devDependencies = {} } = JSON.parse(readFileSync(join(root, file), 'utf8'));
    return {
      directory,
      file,
      dependencies: Object.keys(dependencies),
      devDependencies: Object.keys(devDependencies),
    };
  });
}
