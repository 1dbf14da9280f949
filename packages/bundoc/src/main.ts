import './thread-pool.ts';
import { ConfigError, logLevel, warnOfUnknown } from '@bundoc/shared/runtime/config';
import { runService } from '@bundoc/shared/runtime/lifecycle';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { guardMemory } from '@bundoc/shared/runtime/memory-exposure';
import { nodeFault } from '@bundoc/shared/runtime/node-version';

/** A wrong level is one of the faults that `readConfig` lists, so there must be a logger to say so. */
const level = logLevel.catch('info').parse(process.env['BUNDOC_LOG_LEVEL']);
const logger = createLogger({ service: 'bundoc', level });

/** Of the commands that go through the running service, which may share its environment. */
const OF_COMMANDS = ['BUNDOC_URL', 'BUNDOC_TOKEN', 'BUNDOC_TOKEN_FILE', 'BUNDOC_PROFILE', 'BUNDOC_CA_FILE'];

await runService(logger, async () => {
  const fault = nodeFault();
  if (fault !== undefined) throw new ConfigError([fault]);
  guardMemory(process.env);
  const { startBundoc } = await import('./app.ts');
  const { readConfig, VARIABLES } = await import('./config.ts');
  const config = readConfig(process.env);
  warnOfUnknown('BUNDOC_', [...VARIABLES, ...OF_COMMANDS], process.env, logger);
  return startBundoc(config, { logger });
});
