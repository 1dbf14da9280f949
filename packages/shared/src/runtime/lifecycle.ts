import closeWithGrace from 'close-with-grace';
import { ConfigError } from './config.ts';
import type { Drain } from './drain.ts';
import type { Logger } from './logger.ts';

/** Longest orderly stop after draining, milliseconds; then the process ends anyway. */
const STOP_TIMEOUT_MS = 10_000;

/** How long what a failed start left behind may keep the process alive, milliseconds. */
const FAILED_START_LINGER_MS = 500;

/**
 * A service does not start as things are. The message says what is wrong and what an operator does about it.
 */
export class StartRefused extends Error {
  override readonly name = 'StartRefused';
}

export interface RunningService {
  /** Begins at SIGTERM, before the stop. */
  readonly drain?: Drain;
  /** Stops it in order: no new requests, running ones to their end, then storage and locks. Idempotent. */
  close(): Promise<void>;
}

/**
 * Runs a service until it must stop: SIGTERM, SIGINT, an uncaught error, or the end of the IPC channel
 * to the supervisor that spawned it, so that no service outlives `npm start`.
 *
 * A failed start is logged, in a line for each fault, and ends the process with code 1.
 */
export async function runService(logger: Logger, start: () => Promise<RunningService>): Promise<void> {
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
    // A start that got half-way may have left a listener or a worker behind, which would keep the process
    // alive.
    setTimeout(() => process.exit(1), FAILED_START_LINGER_MS).unref();
    return;
  }

  let stopped: Promise<void> | undefined;
  const stop = async (reason: string, error: unknown): Promise<void> => {
    if (error !== undefined) logger.fatal({ err: error }, 'uncaught error: stopping');
    try {
      // A balancer's process manager sends SIGTERM; a person at a terminal does not want to wait.
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
    // A signal and the end of the channel often come together. The second one waits for the same stop.
    stopped ??= stop(signal ?? 'supervisor', err);
    return stopped;
  });
  if (!supervised) return;
  // The supervisor may have gone while the service was starting: then the event has passed already.
  if (process.connected) process.once('disconnect', () => handle.close());
  else handle.close();
}
