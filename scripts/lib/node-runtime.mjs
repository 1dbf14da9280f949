import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { UserError } from './root.mjs';
import { outputOf } from './run.mjs';

/** The cache between runs. It is inside `node_modules`, so that deleting that also deletes the cache. */
export const cacheDir = (root) => join(root, 'node_modules', '.cache', 'bundoc-dev');

/**
 * The lowest major version in an `engines.node` range of the form `>=24.0.0`.
 * @param {string} range
 */
export function lowestMajor(range) {
  const match = /^>=(\d+)(?:\.0){0,2}$/.exec(range);
  if (match === null) throw new Error(`engines.node must look like >=24.0.0, not ${range}`);
  return Number(match[1]);
}

/** @param {string | undefined} version such as `24.1.0` or `v24.1.0` @param {number} major */
export function isAtLeast(version, major) {
  return Number(/^v?(\d+)\./.exec(version ?? '')?.[1] ?? Number.NaN) >= major;
}

/**
 * The environment without the variables of `npm start`, which a nested npx or pnpm would use as its own
 * settings (prefix, package, lifecycle). The registry and the paths of npm's own files are kept, because the
 * user may have set them only on the command line.
 * @param {NodeJS.ProcessEnv} env
 */
export function withoutNpmVariables(env) {
  const kept = new Set(['npm_config_registry', 'npm_config_cache', 'npm_config_userconfig']);
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !name.startsWith('npm_') || kept.has(name)),
  );
}

/**
 * @param {NodeJS.ProcessEnv} env
 * @param {string} directory the first one to search for programs
 */
export function withPathFirst(env, directory) {
  return { ...env, PATH: [directory, env.PATH].filter(Boolean).join(delimiter) };
}

/**
 * Finds a Node that is new enough for the project: the running one, the cached one from last time, or the
 * `node` package of the npm registry. npx keeps that package in npm's cache. The path is cached because each
 * call of npx costs a second.
 *
 * @param {string} root
 * @param {NodeJS.ProcessEnv} inherited
 * @returns {Promise<{ execPath: string, env: NodeJS.ProcessEnv }>}
 */
export async function findNode(root, inherited) {
  const env = withoutNpmVariables(inherited);
  const major = lowestMajor(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).engines.node);
  // First in PATH, for every shebang and shim below.
  const found = (execPath) => ({ execPath, env: withPathFirst(env, dirname(execPath)) });
  if (isAtLeast(process.versions.node, major)) return found(process.execPath);

  const memory = join(cacheDir(root), 'node-path');
  const remembered = readOrEmpty(memory);
  const version = (execPath) => outputOf(execPath, ['-p', 'process.versions.node'], { cwd: root, env });
  if (remembered !== '' && isAtLeast(await version(remembered), major)) return found(remembered);

  console.error(
    `Node ${process.versions.node} is too old for this project: taking Node ${major} from the npm registry`,
  );
  const printed = await outputOf('npx', ['-y', '-p', `node@${major}`, 'node', '-p', 'process.execPath'], {
    cwd: root,
    env,
  });
  const execPath = printed?.split('\n').pop() ?? '';
  if (execPath === '' || !isAtLeast(await version(execPath), major))
    throw new UserError(`Node ${major} or newer is needed, and npx could not get it (see its error above)`);
  mkdirSync(dirname(memory), { recursive: true });
  writeFileSync(memory, execPath);
  return found(execPath);
}

/** The trimmed text of a file; empty without one. @param {string} path */
export function readOrEmpty(path) {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}
