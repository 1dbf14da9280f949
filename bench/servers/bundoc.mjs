// Bundoc with settings of its configuration that have no variable, from BENCH_SETTINGS.

import '@bundoc/bundoc/thread-pool';
import { createLogger } from '@bundoc/shared/logs/logger';
import { runService } from '@bundoc/shared/process/lifecycle';

const logger = createLogger({ service: 'bundoc', level: 'info' });

await runService(logger, async () => {
  const { startBundoc } = await import('@bundoc/bundoc/app');
  const { readConfig } = await import('@bundoc/bundoc/config');
  return startBundoc(
    { ...readConfig(process.env), ...JSON.parse(process.env.BENCH_SETTINGS ?? '{}') },
    { logger },
  );
});
