import { bundocAccess, ownBundocUrl } from '@bundoc/shared/cli/bundoc-access';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { portOf, waitCommand, waitFor } from '@bundoc/shared/cli/wait';
import { judgeBundoc, readTrust } from './doctor.ts';

/** `bundoc wait`: returns when the service stores documents. Needs no token. */
export const addWaitCommand: AddCommands = (program, environment) => {
  waitCommand(
    program,
    'waits until the service is ready, and prints why it is not; exit code 1 when a process of --pid has ended',
  ).action(async (options) => {
    const { url: named, caFile } = bundocAccess(environment, options);
    const url = named ?? ownBundocUrl(environment);
    const ownPort = named === undefined ? portOf(url) : undefined;
    const trust = await readTrust({ ca: caFile });
    const where = 'by --url, BUNDOC_URL, or BUNDOC_HOST and BUNDOC_PORT';
    await waitFor(
      'bundoc',
      { name: 'Bundoc', url, where, trust, judge: judgeBundoc },
      { ...options, ownPort },
    );
  });
};
