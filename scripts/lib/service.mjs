import { spawn } from 'node:child_process';
import { get } from 'node:http';
import { createInterface } from 'node:readline';
import { killGroup } from './run.mjs';

/** Longer than the services' own limit for an orderly stop (10 s). */
const STOP_TIMEOUT_MS = 15_000;

/**
 * Starts a service. Its output goes through, line by line. It has a process group of its own, so that the
 * terminal's Ctrl-C does not reach it beside the supervisor's SIGTERM. It has an IPC channel, whose end
 * shows that the supervisor is gone.
 *
 * @typedef {{ execPath: string, args?: readonly string[], main: string, cwd: string }} Program
 * @param {string} name
 * @param {Program & { env: NodeJS.ProcessEnv, readyUrl: string }} options
 */
export function startService(name, { execPath, args = [], main, cwd, env, readyUrl }) {
  const child = spawn(execPath, [...args, main], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    detached: true,
  });
  let lastFatal = '';
  for (const [stream, target] of /** @type {const} */ ([
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ]))
    createInterface({ input: stream }).on('line', (line) => {
      target.write(`${line}\n`);
      lastFatal = fatalMessage(line) ?? lastFatal;
    });

  /** @type {Promise<{ name: string, clean: boolean, reason: string }>} */
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve({ name, clean: false, reason: error.message }));
    child.once('close', (code, signal) =>
      resolve({ name, clean: code === 0, reason: lastFatal || (signal ?? `exit code ${code}`) }),
    );
  });

  return {
    ended,
    get running() {
      return child.exitCode === null && child.signalCode === null;
    },
    /** True once `/ready` answers 200. */
    ready: () => answersOk(readyUrl),
    kill: () => killGroup(child, 'SIGKILL'),
    /** One SIGTERM, then patience, then SIGKILL. True when it ended by itself and in order. */
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => killGroup(child, 'SIGKILL'), STOP_TIMEOUT_MS);
      const { clean } = await ended;
      clearTimeout(timer);
      return clean;
    },
  };
}

/**
 * The message of a service's log line of level `fatal`; absent for every other line.
 * @param {string} line
 * @returns {string | undefined}
 */
export function fatalMessage(line) {
  if (!line.startsWith('{') || !line.includes('"fatal"')) return undefined;
  try {
    const { level, msg, err } = JSON.parse(line);
    if (level !== 'fatal') return undefined;
    return [msg, err?.message].filter((part) => typeof part === 'string' && part !== '').join(': ');
  } catch {
    return undefined;
  }
}

/** @param {string} url @returns {Promise<boolean>} */
function answersOk(url) {
  return new Promise((resolve) => {
    const request = get(url, { timeout: 2_000, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.once('timeout', () => request.destroy());
    request.once('error', () => resolve(false));
  });
}
