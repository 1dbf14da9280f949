import { systemClock } from '@bundoc/shared/clock';
import type { Environment } from '@bundoc/shared/config';
import type { KeyInfo } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { createLogger } from '@bundoc/shared/logger';
import { CLI_CALLER } from '../audit/caller.ts';
import { rotateKey as rotate } from '../service/rotate-key.ts';
import { rememberCurrentKek } from '../vault/unseal.ts';
import { withKms, withStore } from './open-kms.ts';

/** Makes a new version of the key the current one and prints which; a running server hands it out from its next request on. */
export async function rotateKey(environment: Environment, name: string): Promise<void> {
  const key = await withKms(environment, async ({ store, vault }) => {
    await rememberCurrentKek(vault, store, systemClock, 'cli');
    // What the log would say, the error says.
    const logger = createLogger({ service: 'bunkms', level: 'silent' });
    return rotate({ store, vault, clock: systemClock, logger }, { name }, CLI_CALLER);
  });
  console.log(lineOf(key));
}

const PAGE = 500;

export async function listKeys(environment: Environment, options: { json?: true }): Promise<void> {
  const keys = await withStore(environment, async (store) => {
    const all: KeyInfo[] = [];
    for (let after: string | undefined, more = true; more; after = all.at(-1)?.name) {
      const page = await store.listKeys(['*'], { after, limit: PAGE });
      all.push(...page.items);
      more = page.more;
    }
    return all;
  });
  if (options.json) console.log(JSON.stringify({ keys }));
  else for (const key of keys) console.log(lineOf(key));
}

/** The key and its versions; none of its material. */
export async function showKey(
  environment: Environment,
  name: string,
  options: { json?: true },
): Promise<void> {
  const key = await withStore(environment, (store) => store.describeKey(name));
  if (key === undefined) throw new AppError('KEY_NOT_FOUND');
  if (options.json) {
    console.log(JSON.stringify(key));
    return;
  }
  const { versions, ...facts } = key;
  for (const [fact, value] of Object.entries(facts)) console.log(`${fact}: ${value}`);
  for (const { version, kcv, created_at } of versions)
    console.log(['version', version, kcv, created_at].join('  '));
}

function lineOf({ name, state, version, kcv, created_at }: KeyInfo): string {
  return [name, state, version, kcv, created_at].join('  ');
}
