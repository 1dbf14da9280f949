/**
 * A service that `lifecycle.test.ts` runs in a separate process; its argument selects its behaviour. It
 * prints to standard error, because standard output is the log.
 */
import { createServer } from 'node:net';
import process from 'node:process';
import { createLogger } from '../src/logs/logger.ts';
import { ConfigError } from '../src/process/config.ts';
import { Drain } from '../src/process/drain.ts';
import { runService } from '../src/process/lifecycle.ts';

const behaviour = process.argv[2];
const say = (word: string) => process.stderr.write(`${word}\n`);
const logger = createLogger({ service: 'bundoc', level: 'info' });

await runService(logger, async () => {
  const server = createServer().listen(0, '127.0.0.1'); // Keeps the process alive like a real service.
  switch (behaviour) {
    case 'config-error':
      throw new ConfigError(['PORT: must be a whole number', 'HOST: must be set']);
    case 'start-error':
      throw new Error('the disk is gone');
    case 'orphaned-start':
      process.disconnect();
      break;
    case 'uncaught':
      setImmediate(() => {
        throw new Error('defect');
      });
      break;
    case 'rejection':
      void Promise.reject(new Error('defect'));
      break;
    default:
  }
  let closes = 0;
  const drain = new Drain(100);
  return {
    ...(behaviour === 'draining' ? { drain } : {}),
    close: async () => {
      if (drain.isDraining) say('drained');
      say(`close ${++closes}`);
      if (behaviour === 'close-error') throw new Error('the lock is gone');
      // A second reason to stop arrives during the first stop.
      if (behaviour === 'stopped-twice') process.disconnect();
      await new Promise<void>((resolve) => server.close(() => setImmediate(resolve)));
      say('closed');
    },
  };
});
say('started');
