// The service as its main program runs it, but it asks the slots of its ring more often.

import { createLogger } from '@bundoc/shared/logs/logger';
import { runService } from '@bundoc/shared/process/lifecycle';
import { readConfig } from '../../src/config.ts';
import { runBunkms } from '../../src/run-bunkms.ts';

const logger = createLogger({ service: 'bunkms', level: 'info' });
const slotTimes = { everyMs: 200, againMs: 100 };
await runService(logger, () => runBunkms(readConfig(process.env), { logger, slotTimes }));
