import { fileURLToPath } from 'node:url';
import type { Finished } from '@bundoc/shared/testing/captured-run';
import { runNode, spawnNode } from '@bundoc/shared/testing/node-process';
import { ServiceProcess } from '@bundoc/shared/testing/service-process';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';

const source = (path: string) => fileURLToPath(new URL(`../../src/${path}`, import.meta.url));
/** Timeouts that tolerate a stalled disk. */
export const PATIENT = { BUNKMS_SQLITE_DEADLINE_MS: String(PATIENT_MS) };

/** Starts `bunkms` with arguments, like an operator. */
export function spawnBunkms(environment: Record<string, string>, args: readonly string[]) {
  return spawnNode([source('cli/main.ts'), ...args], { ...PATIENT, ...environment });
}

/** Runs `bunkms` as a separate process until it exits. */
export function bunkmsProcess(environment: Record<string, string>, ...args: string[]): Promise<Finished> {
  return runNode([source('cli/main.ts'), ...args], { ...PATIENT, ...environment });
}

/** Runs the container's health check. @returns its exit code. */
export async function healthcheck(environment: Record<string, string>): Promise<number | null> {
  return (await runNode([source('healthcheck.ts')], environment)).code;
}

export type Server = ServiceProcess & { readonly apiUrl: string; readonly internalUrl: string };

/** The variables of a server with these: it listens on free ports, and stops at once. */
export const serverVariables = (environment: Record<string, string>) => ({
  ...PATIENT,
  BUNKMS_PORT: '0',
  BUNKMS_INTERNAL_PORT: '0',
  BUNKMS_DRAIN_MS: '0',
  ...environment,
});

/** Starts the service as a separate process and waits until it listens; see {@link ServiceProcess.start}. */
export async function startServer(environment: Record<string, string>): Promise<Server> {
  const { service, record } = await ServiceProcess.start(
    source('main.ts'),
    serverVariables(environment),
    'listening',
  );
  return Object.assign(service, {
    apiUrl: String(record.apiUrl),
    internalUrl: String(record.internalUrl),
  });
}
