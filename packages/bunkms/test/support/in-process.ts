import { Writable } from 'node:stream';
import { createLogger } from '@bundoc/shared/logs/logger';
import { LONG } from '@bundoc/shared/testing/long';
import { startBunkms } from '../../src/app.ts';
import { readConfig } from '../../src/config.ts';
import { serverVariables, startServer } from './process.ts';

/** A running service whose process is not the point of a test. */
export interface ConfiguredService extends AsyncDisposable {
  readonly apiUrl: string;
  readonly internalUrl: string;
  /** The log so far. */
  readonly log: string;
}

/**
 * Starts the service with this environment, in this process: a process of its own takes two seconds of
 * processor time. In `npm run test:long` it is one.
 */
export async function startConfigured(environment: Record<string, string>): Promise<ConfiguredService> {
  if (LONG) return startServer(environment);
  let log = '';
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      log += String(chunk);
      done();
    },
  });
  const logger = createLogger({ service: 'bunkms', level: 'info', destination });
  const running = await startBunkms(readConfig(serverVariables(environment)), {
    logger,
    // Tests cause refusals faster than clients may.
    http: { refusalDelayMs: 0 },
  });
  return {
    apiUrl: running.apiUrl,
    internalUrl: running.internalUrl,
    get log() {
      return log;
    },
    [Symbol.asyncDispose]: () => running.close(),
  };
}
