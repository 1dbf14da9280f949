import { counted } from '@bundoc/shared/cli/counted';
import { createProgress } from '@bundoc/shared/cli/progress';
import { replacePrivateFile } from '@bundoc/shared/files/private-file';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { Environment } from '@bundoc/shared/runtime/config';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { CLI_CALLER } from '../records/caller.ts';
import { formatInventory, takeInventory } from '../recovery/inventory.ts';
import { CliFailure } from './errors.ts';
import { withKms } from './open-kms.ts';

/**
 * Writes the state of every key and token to a file, which it replaces, while the server may run. The file
 * contains no key and is authenticated under the KEK.
 *
 * @throws CliFailure after writing the file when keys are damaged.
 */
export async function writeInventory(
  environment: Environment,
  file: string,
  options: { readonly json?: true },
): Promise<void> {
  const inventory = await withKms(environment, async ({ store, vault, state }) => {
    using progress = createProgress('{bar} {value}/{total} keys, {eta_formatted} left');
    progress.start((await store.counts()).keys);
    const deps = {
      store,
      state,
      clock: systemClock,
      logger: createLogger({ service: 'bunkms', level: 'silent' }),
    };
    const taken = await takeInventory(deps, CLI_CALLER, (keys) => progress.update(keys));
    await replacePrivateFile(file, formatInventory(vault, taken));
    return taken;
  });
  const { created_at, audit, keys, tokens, damaged } = inventory;
  if (options.json)
    console.log(
      JSON.stringify({ file, created_at, audit, keys: keys.length, tokens: tokens.length, damaged }),
    );
  else {
    console.log(`${file}: ${counted(keys.length, 'key')}, ${counted(tokens.length, 'token')}`);
    console.log(`audit: ${audit.seq}:${audit.hash}`);
  }
  if (damaged.length > 0) throw new CliFailure(`keys contradict the audit chain: ${damaged.join(', ')}`);
}
