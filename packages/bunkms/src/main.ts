import { createLogger } from '@bundoc/shared/logs/logger';
import { ConfigError, logLevel, warnOfUnknown } from '@bundoc/shared/process/config';
import { runService } from '@bundoc/shared/process/lifecycle';
import { guardMemory } from '@bundoc/shared/process/memory-exposure';
import { nodeFault } from '@bundoc/shared/process/node-version';

// An invalid level is a configuration fault, but reporting it needs a logger.
const level = logLevel.catch('info').parse(process.env['BUNKMS_LOG_LEVEL']);
const logger = createLogger({ service: 'bunkms', level });

await runService(logger, async () => {
  const fault = nodeFault();
  if (fault !== undefined) throw new ConfigError([fault]);
  guardMemory(process.env);
  const { runBunkms } = await import('./run-bunkms.ts');
  const { KNOWN_VARIABLES, readConfig } = await import('./config.ts');
  warnOfUnknown(KNOWN_VARIABLES, process.env, logger);
  const config = readConfig(process.env);
  return runBunkms(config, { logger });
});
