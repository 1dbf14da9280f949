import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Finished } from '@bundoc/shared/testing/captured-run';
import { PATIENT_MS } from '@bundoc/shared/testing/patient';

const source = (path: string) => fileURLToPath(new URL(`../../src/${path}`, import.meta.url));
const NODE_ARGS = ['--conditions=@bundoc/source'];
/** A stalled disk is no failure here. */
const PATIENT = { BUNKMS_SQLITE_DEADLINE_MS: String(PATIENT_MS) };

/** The same of a database; not for tests in which it fails. */
export const PATIENT_POSTGRES = {
  BUNKMS_POSTGRES_CONNECT_TIMEOUT_MS: String(PATIENT_MS / 2),
  BUNKMS_POSTGRES_STATEMENT_TIMEOUT_MS: String(PATIENT_MS / 2),
  BUNKMS_POSTGRES_LOCK_TIMEOUT_MS: String(PATIENT_MS / 2),
  BUNKMS_POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS: String(PATIENT_MS / 2),
  BUNKMS_POSTGRES_DEADLINE_MS: String(PATIENT_MS),
};

/** Starts `bunkms` with arguments, as an operator does. */
export function spawnBunkms(environment: Record<string, string>, args: readonly string[]) {
  return spawn(process.execPath, [...NODE_ARGS, source('cli/main.ts'), ...args], {
    env: { ...PATIENT, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs `bunkms` as a process of its own, to its end. */
export async function bunkmsProcess(
  environment: Record<string, string>,
  ...args: string[]
): Promise<Finished> {
  const child = spawnBunkms(environment, args);
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    output.stdout += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    output.stderr += String(chunk);
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...output };
}

/** Runs the container's health check. @returns its exit code. */
export async function healthcheck(environment: Record<string, string>): Promise<number | null> {
  const child = spawn(process.execPath, [...NODE_ARGS, source('healthcheck.ts')], {
    env: environment,
    stdio: 'ignore',
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return code;
}

export interface Server extends AsyncDisposable {
  readonly process: ChildProcess;
  readonly apiUrl: string;
  readonly internalUrl: string;
  /** All that it has written, to both streams. */
  output(): string;
}

/** Runs the service as a process of its own, until it listens. */
export async function startServer(environment: Record<string, string>): Promise<Server> {
  const child = spawn(process.execPath, [...NODE_ARGS, source('main.ts')], {
    env: { ...PATIENT, BUNKMS_PORT: '0', BUNKMS_INTERNAL_PORT: '0', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stderr.on('data', (chunk) => {
    output += String(chunk);
  });
  // Not 'exit': by then its last lines may not have been read.
  const closed = once(child, 'close');
  const listening = new Promise<{ apiUrl: string; internalUrl: string }>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      output += `${line}\n`;
      if (line.includes('"msg":"listening"')) resolve(JSON.parse(line));
    });
    child.once('close', (code) => reject(new Error(`the service ended with ${code}: ${output}`)));
  });
  const { apiUrl, internalUrl } = await listening;
  return {
    process: child,
    apiUrl,
    internalUrl,
    output: () => output,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await closed;
    },
  };
}
