import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { factLines, type JsonOption, print } from '@bundoc/shared/cli/print';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { readConfig } from '../config.ts';
import { unseal } from '../vault/unseal.ts';
import { KekUnfit } from './errors.ts';
import { loadRing, withStore } from './open-kms.ts';

/** `bunkms status`: the state of the installation in its store. Does not check whether a server runs. */
export const addStatusCommand: AddCommands = (program, environment) => {
  command(program, 'status', 'shows the state of the installation; exit code 1 when it is sealed').action(
    (options) => status(environment, options),
  );
};

/** @throws CliFailure when it is sealed. */
async function status(environment: Environment, options: JsonOption): Promise<void> {
  const config = readConfig(environment);
  const { facts, state } = await withStore(environment, async (store) => {
    const vault = await loadRing(config, { warn: () => undefined });
    const opened = await unseal(vault, store, systemClock, 'cli');
    const installation = await store.readInstallation();
    const { keys, tokens } = await store.counts();
    const { seq } = await store.auditHead();
    return {
      state: opened,
      facts: {
        status: opened.kind,
        created_at: installation?.createdAt,
        kid: opened.publicKey.kid,
        // Unknown while sealed, because the content of the store is not authenticated then.
        ...(opened.kind === 'sealed' ? {} : { current_kek: vault.currentKekId }),
        known_keks: installation?.keks.map(({ id }) => id),
        ring_keks: vault.kekIds,
        keys,
        tokens,
        audit_records: seq,
      },
    };
  });
  print(options, facts, () => factLines(facts));
  if (state.kind === 'sealed') throw new KekUnfit(state.reason);
}
