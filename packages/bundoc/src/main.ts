import './thread-pool.ts';
import { createLogger } from '@bundoc/shared/logs/logger';
import { ConfigError, logLevel, warnOfUnknown } from '@bundoc/shared/process/config';
import { runService } from '@bundoc/shared/process/lifecycle';
import { guardMemory } from '@bundoc/shared/process/memory-exposure';
import { nodeFault } from '@bundoc/shared/process/node-version';

/** `readConfig` reports a wrong level, so a logger must exist before. */
const level = logLevel.catch('info').parse(process.env['BUNDOC_LOG_LEVEL']);
const logger = createLogger({ service: 'bundoc', level });

await runService(logger, async () => {
  const fault = nodeFault();
  if (fault !== undefined) throw new ConfigError([fault]);
  guardMemory(process.env);
  const { startBundoc } = await import('./app.ts');
  const { readConfig } = await import('./config.ts');
  const { KNOWN_VARIABLES } = await import('./known-variables.ts');
  warnOfUnknown(KNOWN_VARIABLES, process.env, logger);
  const config = readConfig(process.env);
  return startBundoc(config, { logger });
});
