import { fileURLToPath } from 'node:url';
import { ServiceProcess } from '@bundoc/shared/testing/service-process';
import { untilConfirmed } from './until-confirmed.ts';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/main.ts', import.meta.url));

export type BundocProcess = ServiceProcess & { readonly url: string };

/**
 * Starts Bundoc in its own process. Resolves once it listens and BunKMS, if it runs, has confirmed its
 * storage. See {@link ServiceProcess.start}.
 */
export async function startBundocProcess(
  environment: Readonly<Record<string, string>>,
): Promise<BundocProcess> {
  const variables = { BUNDOC_PORT: '0', BUNDOC_DRAIN_MS: '0', ...environment };
  const { service, record } = await ServiceProcess.start(MAIN, variables, 'Bundoc is listening');
  const url = String(record.url);
  await untilConfirmed(url);
  return Object.assign(service, { url });
}
