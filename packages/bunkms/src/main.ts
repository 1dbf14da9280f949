import { logLevel } from '@bundoc/shared/config';
import { runService } from '@bundoc/shared/lifecycle';
import { createLogger } from '@bundoc/shared/logger';
import { guardMemory } from '@bundoc/shared/memory-exposure';
import { startBunkms } from './app.ts';
import { readConfig } from './config.ts';

// A level that is no level is a fault of the configuration, and to report that takes a logger.
const level = logLevel.catch('info').parse(process.env['BUNKMS_LOG_LEVEL']);
const logger = createLogger({ service: 'bunkms', level });

await runService(logger, async () => {
  guardMemory(process.env);
  return startBunkms(readConfig(process.env), { logger });
});
