import { spawn } from 'node:child_process';
import { get } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { json } from 'node:stream/consumers';
import { isatty } from 'node:tty';
import { pathToFileURL } from 'node:url';
import { killGroup } from './run.mjs';

/** Longer than the services' own limit for an orderly stop (10 s). */
const STOP_TIMEOUT_MS = 15_000;

/**
 * Starts a service. Its output passes through line by line; at a terminal its log is made readable. It has a
 * separate process group, so that Ctrl-C in the terminal does not reach it in addition to the supervisor's
 * SIGTERM. It also has an IPC channel, which closes when the supervisor exits for any reason.
 *
 * @param {string} name
 * @param {{
 *   execPath: string, args?: readonly string[], main: string, cwd: string,
 *   env: NodeJS.ProcessEnv, readyUrl: string,
 *   present: (line: string) => string,
 * }} options
 */
export function startService(name, { execPath, args = [], main, cwd, env, readyUrl, present }) {
  const child = spawn(execPath, [...args, main], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    detached: true,
  });
  /** @type {string[]} */
  const fatal = [];
  for (const [stream, target] of /** @type {const} */ ([
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ]))
    createInterface({ input: stream }).on('line', (line) => {
      target.write(`${present(line)}\n`);
      const message = fatalMessage(line);
      if (message !== undefined) fatal.push(message);
    });

  /** @type {Promise<{ name: string, clean: boolean, reason: string }>} */
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve({ name, clean: false, reason: error.message }));
    child.once('close', (code, signal) =>
      resolve({ name, clean: code === 0, reason: fatal.join('; ') || (signal ?? `exit code ${code}`) }),
    );
  });

  return {
    name,
    ended,
    get running() {
      return child.exitCode === null && child.signalCode === null;
    },
    /** True once `/ready` answers 200 and, for Bundoc, the events of BunKMS are live. */
    ready: () => isReady(readyUrl),
    kill: () => killGroup(child, 'SIGKILL'),
    /** Sends SIGTERM, and SIGKILL after a timeout. True when it stopped in order. */
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
 * The message of a service's log line of level `fatal`; undefined for all other lines.
 * @param {string} line
 * @returns {string | undefined}
 */
export function fatalMessage(line) {
  if (!line.startsWith('{') || !line.includes('"fatal"')) return undefined;
  try {
    const { level, msg } = JSON.parse(line);
    return level === 'fatal' ? msg : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Formats lines of the services: at a terminal like the services themselves, otherwise unchanged.
 * @param {string} root of the built workspace
 * @returns {Promise<(line: string) => string>}
 */
export async function presenter(root) {
  if (!isatty(1)) return (line) => line;
  const module = join(root, 'packages', 'shared', 'dist', 'logs', 'terminal-line.js');
  const { terminalLine } = await import(pathToFileURL(module).href);
  return (line) => terminalLine(line, !process.env.NO_COLOR);
}

/** @param {string} url @returns {Promise<boolean>} */
function isReady(url) {
  return new Promise((resolve) => {
    const request = get(url, { timeout: 2_000, agent: false }, (response) => {
      json(response).then(
        ({ kms_events: events = 'live' }) => resolve(response.statusCode === 200 && events === 'live'),
        () => resolve(false),
      );
    });
    request.once('timeout', () => request.destroy());
    request.once('error', () => resolve(false));
  });
}
