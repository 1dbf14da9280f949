import { ownUrl } from '@bundoc/shared/cli/ask-service';
import { judgeBunkms } from '@bundoc/shared/cli/check-service';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { readText } from '@bundoc/shared/cli/read-text';
import { portOf, waitCommand, waitFor } from '@bundoc/shared/cli/wait';
import { readConfig } from '../config.ts';

/** `bunkms wait`: returns when the service is unsealed and its store is writable. Opens no store itself. */
export const addWaitCommand: AddCommands = (program, environment) => {
  waitCommand(
    program,
    'waits until the service is ready, and prints why it is not; exit code 1 when a process of --pid has ended',
  ).action(async (options) => {
    const url = options.url ?? ownUrl(readConfig(environment));
    const ownPort = options.url === undefined ? portOf(url) : undefined;
    const trust = options.caFile === undefined ? {} : { ca: await readText(options.caFile) };
    const where = 'by --url, or BUNKMS_HOST and BUNKMS_PORT';
    await waitFor(
      'bunkms',
      { name: 'BunKMS', url, where, trust, judge: judgeBunkms },
      { ...options, ownPort },
    );
  });
};
