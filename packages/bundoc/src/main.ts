import './thread-pool.ts';
import { logLevel } from '@bundoc/shared/config';
import { runService } from '@bundoc/shared/lifecycle';
import { createLogger } from '@bundoc/shared/logger';
import { guardMemory } from '@bundoc/shared/memory-exposure';
import { startBundoc } from './app.ts';
import { readConfig } from './config.ts';

/** A wrong level is one of the faults that `readConfig` lists, so there must be a logger to say so. */
const level = logLevel.catch('info').parse(process.env['BUNDOC_LOG_LEVEL']);
const logger = createLogger({ service: 'bundoc', level });

await runService(logger, async () => {
  guardMemory(process.env);
  return startBundoc(readConfig(process.env), { logger });
});
