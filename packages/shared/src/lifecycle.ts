import closeWithGrace from 'close-with-grace';
import { ConfigError } from './config.ts';
import type { Logger } from './logger.ts';

/** Longest orderly stop, milliseconds; then the process ends anyway. */
export const STOP_TIMEOUT_MS = 10_000;

export interface RunningService {
  /** Stops it in order: no new requests, running ones to their end, then storage and locks. Idempotent. */
  close(): Promise<void>;
}

/**
 * Runs a service until it is told to stop: SIGTERM, SIGINT, an uncaught error, or the end of the IPC channel to the
 * supervisor that spawned it, so that no service outlives `npm start`.
 *
 * A failed start is logged, once, and ends the process with code 1.
 */
export async function runService(logger: Logger, start: () => Promise<RunningService>): Promise<void> {
  let service: RunningService;
  try {
    service = await start();
  } catch (error) {
    if (error instanceof ConfigError) logger.fatal(error.message);
    else logger.fatal({ err: error }, 'the service did not start');
    logger.flush();
    process.exitCode = 1;
    if (process.connected) process.disconnect();
    return;
  }
  const handle = closeWithGrace({ delay: STOP_TIMEOUT_MS, logger: false }, async ({ signal, err }) => {
    if (err !== undefined) logger.fatal({ err }, 'uncaught error: stopping');
    else logger.info({ signal: signal ?? 'supervisor' }, 'stopping');
    await service.close();
    logger.info('stopped');
    logger.flush();
  });
  if (process.connected) process.once('disconnect', () => handle.close());
}
