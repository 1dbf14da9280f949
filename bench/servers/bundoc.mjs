// Bundoc with settings of its configuration that have no variable, from BENCH_SETTINGS.

import '@bundoc/bundoc/thread-pool';
import { runService } from '@bundoc/shared/runtime/lifecycle';
import { createLogger } from '@bundoc/shared/runtime/logger';

const logger = createLogger({ service: 'bundoc', level: 'info' });

await runService(logger, async () => {
  const { startBundoc } = await import('@bundoc/bundoc/app');
  const { readConfig } = await import('@bundoc/bundoc/config');
  return startBundoc(
    { ...readConfig(process.env), ...JSON.parse(process.env.BENCH_SETTINGS ?? '{}') },
    { logger },
  );
});
