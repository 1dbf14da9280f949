import { setTimeout as pause } from 'node:timers/promises';
import { createLogger, type Logger } from '@bundoc/shared/logs/logger';
import { type BunkmsDependencies, end, type RunningBunkms, startBunkms } from './app.ts';
import type { BunkmsConfig } from './config.ts';

/** How long running requests may take to end once the ring is withdrawn, milliseconds. */
const END_MS = 5_000;

/**
 * Runs the service as the main program of a process. When the owners of all slots of its sealed ring have
 * withdrawn them, the service ends and the process is replaced by a new one, which starts sealed.
 *
 * @throws as {@link startBunkms}.
 */
export async function runBunkms(
  config: BunkmsConfig,
  dependencies: BunkmsDependencies = {},
): Promise<RunningBunkms> {
  const logger = dependencies.logger ?? createLogger({ service: 'bunkms', level: config.logLevel });
  const running = await startBunkms(config, { ...dependencies, logger });
  let isStopping = false;
  const close = () => {
    isStopping = true;
    return running.close();
  };
  // A service that its supervisor stops must not come back.
  const mayReplace = () => !isStopping && !running.drain.isDraining;
  void running.withdrawn.then(() => replaceProcess(running, mayReplace, logger)).catch(end);
  return { ...running, close };
}

/**
 * Replaces this process by itself: no key is left in its memory, whatever refers to it, and its supervisor
 * notices nothing. A supervisor with a channel, or a system without that call, starts another process.
 */
async function replaceProcess(
  running: RunningBunkms,
  mayReplace: () => boolean,
  logger: Logger,
): Promise<void> {
  logger.error('the ring is withdrawn: this process ends, which has its keys in memory');
  await Promise.race([running.close(), pause(END_MS)]);
  logger.flush();
  if (!mayReplace()) return;
  if (process.connected || process.execve === undefined) throw new Error('the ring is withdrawn');
  process.execve(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)]);
}
