import closeWithGrace from 'close-with-grace';
import type { Logger } from '../logs/logger.ts';
import { ConfigError } from './config.ts';
import type { Drain } from './drain.ts';
import { lowerHelperThreads } from './thread-priority.ts';
import { allocateYoung } from './young-allocation.ts';

/** Maximum time of an orderly stop after draining, milliseconds. Then the process exits anyway. */
const STOP_TIMEOUT_MS = 10_000;

/** How long leftovers of a failed start may keep the process alive, milliseconds. */
const FAILED_START_LINGER_MS = 500;

/** A service cannot start. The message says what is wrong and what the operator must do. */
export class StartRefused extends Error {
  override readonly name: string = 'StartRefused';
}

export interface RunningService {
  /** Begins at SIGTERM, before the stop. */
  readonly drain?: Drain;
  /**
   * Stops the service in order: it accepts no new requests, finishes the running ones, then closes storage
   * and locks. Idempotent.
   */
  close(): Promise<void>;
}

/**
 * Runs a service until it must stop: on SIGTERM, SIGINT or an uncaught error. It also stops when the IPC
 * channel to its supervisor closes, so that no service outlives `npm start`.
 *
 * A failed start logs one line for each fault and exits with code 1.
 */
export async function runService(logger: Logger, start: () => Promise<RunningService>): Promise<void> {
  allocateYoung();
  lowerHelperThreads();
  const supervised = process.connected;
  let service: RunningService;
  try {
    service = await start();
  } catch (error) {
    if (error instanceof ConfigError)
      for (const fault of error.faults) logger.fatal(`the configuration is not valid: ${fault}`);
    else if (error instanceof StartRefused) logger.fatal(error.message);
    else logger.fatal({ err: error }, 'the service did not start');
    logger.flush();
    process.exitCode = 1;
    if (process.connected) process.disconnect();
    // A partial start may have left a listener or a worker, which would keep the process alive.
    setTimeout(() => process.exit(1), FAILED_START_LINGER_MS).unref();
    return;
  }

  let stopped: Promise<void> | undefined;
  const stop = async (reason: string, error: unknown): Promise<void> => {
    if (error !== undefined) logger.fatal({ err: error }, 'uncaught error: stopping');
    try {
      // Process managers send SIGTERM. With SIGINT, a person at a terminal does not want to wait.
      if (service.drain !== undefined && reason === 'SIGTERM') {
        logger.info({ signal: reason, ms: service.drain.ms }, 'draining');
        await service.drain.begin();
      }
      if (error === undefined) logger.info({ signal: reason }, 'stopping');
      await service.close();
      logger.info('stopped');
    } catch (closeError) {
      logger.fatal({ err: closeError }, 'the service did not stop cleanly');
      throw closeError;
    } finally {
      logger.flush();
    }
  };
  const onTimeout = (): void => {
    logger.fatal('the service did not stop in time');
    logger.flush();
  };
  const delay = STOP_TIMEOUT_MS + (service.drain?.ms ?? 0);
  const handle = closeWithGrace({ delay, logger: false, onTimeout }, ({ signal, err }) => {
    // A signal and the end of the channel often coincide. The second one waits for the same stop.
    stopped ??= stop(signal ?? 'supervisor', err);
    return stopped;
  });
  if (!supervised) return;
  // If the supervisor exited while the service was starting, the event has passed already.
  if (process.connected) process.once('disconnect', () => handle.close());
  else handle.close();
}
