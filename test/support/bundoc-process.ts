import { fileURLToPath } from 'node:url';
import { ServiceProcess } from '@bundoc/shared/testing/service-process';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/main.ts', import.meta.url));

export type BundocProcess = ServiceProcess & { readonly url: string };

/** Starts Bundoc as a process of its own, until it listens; see {@link ServiceProcess.start}. */
export async function startBundocProcess(
  environment: Readonly<Record<string, string>>,
): Promise<BundocProcess> {
  const variables = { BUNDOC_PORT: '0', ...environment };
  const { service, record } = await ServiceProcess.start(MAIN, variables, 'Bundoc is listening');
  return Object.assign(service, { url: String(record.url) });
}
