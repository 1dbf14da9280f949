import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { startBundoc } from '@bundoc/bundoc/app';
import { readConfig } from '@bundoc/bundoc/config';
import { createLogger } from '@bundoc/shared/logs/logger';
import { LONG } from '@bundoc/shared/testing/long';
import { ServiceProcess } from '@bundoc/shared/testing/service-process';
import { untilConfirmed } from './until-confirmed.ts';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/main.ts', import.meta.url));

export type BundocProcess = ServiceProcess & { readonly url: string };

const variablesOf = (environment: Readonly<Record<string, string>>) => ({
  BUNDOC_PORT: '0',
  BUNDOC_DRAIN_MS: '0',
  ...environment,
});

/**
 * Starts Bundoc in its own process. Resolves once it listens and BunKMS, if it runs, has confirmed its
 * storage. See {@link ServiceProcess.start}.
 */
export async function startBundocProcess(
  environment: Readonly<Record<string, string>>,
): Promise<BundocProcess> {
  const started = await ServiceProcess.start(MAIN, variablesOf(environment), 'Bundoc is listening');
  const { service, record } = started;
  const url = String(record.url);
  await untilConfirmed(url);
  return Object.assign(service, { url });
}

/** A running Bundoc whose process is not the point of a test. */
export interface ConfiguredBundoc extends AsyncDisposable {
  readonly url: string;
}

/**
 * Starts Bundoc with this environment, in this process: a process of its own takes two seconds of processor
 * time. In `npm run test:long` it is one. Resolves as {@link startBundocProcess}.
 */
export async function startConfiguredBundoc(
  environment: Readonly<Record<string, string>>,
): Promise<ConfiguredBundoc> {
  if (LONG) return startBundocProcess(environment);
  const destination = new Writable({ write: (_chunk, _encoding, done) => done() });
  const logger = createLogger({ service: 'bundoc', level: 'info', destination });
  const http = { refusalDelayMs: 0 };
  const running = await startBundoc(readConfig(variablesOf(environment)), { logger, http });
  await untilConfirmed(running.url);
  return { url: running.url, [Symbol.asyncDispose]: () => running.close() };
}
