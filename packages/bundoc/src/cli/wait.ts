import { bundocAccess, ownBundocUrl } from '@bundoc/shared/cli/bundoc-access';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { addWait } from '@bundoc/shared/cli/wait';
import { judgeBundoc } from './doctor.ts';

/** `bundoc wait`: returns when the service stores documents. Needs no token. */
export const addWaitCommand: AddCommands = (program, environment) =>
  addWait(program, {
    name: 'Bundoc',
    where: 'by --url, BUNDOC_URL, or BUNDOC_HOST and BUNDOC_PORT',
    expected: ['bundoc'],
    judge: judgeBundoc,
    access: (options) => bundocAccess(environment, options),
    own: () => ({ url: ownBundocUrl(environment) }),
  });
