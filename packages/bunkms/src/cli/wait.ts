import { ownUrl } from '@bundoc/shared/cli/ask-service';
import { judgeBunkms } from '@bundoc/shared/cli/check-service';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { addWait } from '@bundoc/shared/cli/wait';
import { readConfig } from '../config.ts';

/** `bunkms wait`: returns when the service is unsealed and its store is writable. Opens no store itself. */
export const addWaitCommand: AddCommands = (program, environment) =>
  addWait(program, {
    name: 'BunKMS',
    where: 'by --url, or BUNKMS_HOST and BUNKMS_PORT',
    expected: ['bunkms', 'bunkms-internal'],
    judge: judgeBunkms,
    access: (options) => ({
      ...options,
      source: options.url === undefined ? 'BUNKMS_HOST and BUNKMS_PORT' : '--url',
    }),
    own: () => {
      const config = readConfig(environment);
      return { url: ownUrl(config), certFile: config.tls?.cert?.path };
    },
  });
