import {
  createKeySchema,
  type DestroyReceipt,
  type KeyDetail,
  type KeyInfo,
  type UpdateKey,
  updateKeySchema,
} from '@bundoc/shared/contract/keys';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { z } from 'zod';
import type { KeyRequest } from '../keys/change-key.ts';
import { createKey } from '../keys/create-key.ts';
import { destroyKey, destroyVersion } from '../keys/destroy-key.ts';
import { claimKey, takeOverKey } from '../keys/key-holder.ts';
import * as lifecycle from '../keys/key-lifecycle.ts';
import { listKeys, readKey } from '../keys/read-keys.ts';
import { rotateKey } from '../keys/rotate-key.ts';
import type { KeyDeps } from '../keys/stored-key.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { UsageError } from './errors.ts';
import { withKeys } from './open-kms.ts';

export interface JsonOption {
  readonly json?: true;
}

export async function create(
  environment: Environment,
  name: string,
  options: JsonOption & { readonly exportable: boolean; readonly rotateAfterDays?: number },
): Promise<void> {
  const { exportable, rotateAfterDays: rotate_after_days = null } = options;
  const wanted = parsed(createKeySchema, { name, type: 'aes-256', exportable, rotate_after_days });
  printKey(await withKeys(environment, (deps) => createKey(deps, wanted, CLI_CALLER)), options);
}

export async function claim(
  environment: Environment,
  name: string,
  options: JsonOption & { readonly storage: string },
): Promise<void> {
  const { storage } = options;
  printKey(
    await withKeys(environment, (deps) => claimKey(deps, { name, storage }, true, CLI_CALLER)),
    options,
  );
}

/** A running Bundoc that held the key drops it within a second, because BunKMS notifies it. */
export async function takeOver(
  environment: Environment,
  name: string,
  options: JsonOption & { readonly storage: string; readonly force?: true },
): Promise<void> {
  const { storage, force = false } = options;
  printKey(
    await withKeys(environment, (deps) => takeOverKey(deps, { name, storage, force }, CLI_CALLER)),
    options,
  );
}

/** Changes that need only the name of the key. */
export type PlainChange = 'rotate' | 'enable' | 'disable' | 'restore';

/** Options of a change. */
export interface ChangeOptions extends JsonOption {
  /** For a rotation: gives up a current version that does not open. */
  readonly acceptLoss?: true;
}

type Change = (deps: KeyDeps, request: KeyRequest, options: ChangeOptions) => Promise<KeyInfo>;

const PLAIN_CHANGES: Record<PlainChange, Change> = {
  rotate: (deps, request, { acceptLoss = false }) => rotateKey(deps, { ...request, acceptLoss }, CLI_CALLER),
  enable: (deps, request) => lifecycle.enableKey(deps, request, CLI_CALLER),
  disable: (deps, request) => lifecycle.disableKey(deps, request, CLI_CALLER),
  restore: (deps, request) => lifecycle.restoreKey(deps, request, CLI_CALLER),
};

/** Changes a key. A running server uses the changed key from its next request on. */
export async function change(
  environment: Environment,
  which: PlainChange,
  name: string,
  options: ChangeOptions,
): Promise<void> {
  printKey(await withKeys(environment, (deps) => PLAIN_CHANGES[which](deps, { name }, options)), options);
}

export async function set(
  environment: Environment,
  name: string,
  options: JsonOption & { readonly exportable: boolean; readonly rotateAfterDays?: number | 'never' },
): Promise<void> {
  const { exportable, rotateAfterDays } = options;
  const update: UpdateKey = parsed(updateKeySchema, {
    // Without --no-exportable the option is true, which means no change.
    ...(exportable ? {} : { exportable: false }),
    ...(rotateAfterDays === undefined
      ? {}
      : { rotate_after_days: rotateAfterDays === 'never' ? null : rotateAfterDays }),
  });
  printKey(
    await withKeys(environment, (deps) => lifecycle.updateKey(deps, { name, update }, CLI_CALLER)),
    options,
  );
}

export async function scheduleDeletion(
  environment: Environment,
  name: string,
  options: JsonOption & { readonly pendingDays: number },
): Promise<void> {
  const { pendingDays } = options;
  printKey(
    await withKeys(environment, (deps) =>
      lifecycle.scheduleDeletion(deps, { name, pendingDays }, CLI_CALLER),
    ),
    options,
  );
}

export async function destroy(
  environment: Environment,
  name: string,
  options: JsonOption & { readonly confirm: string; readonly version?: number },
): Promise<void> {
  const { confirm, version } = options;
  if (confirm !== name) throw new UsageError('--confirm must repeat the name of the key');
  const receipt = await withKeys(environment, (deps) =>
    version === undefined
      ? destroyKey(deps, { name }, CLI_CALLER)
      : destroyVersion(deps, { name, version }, CLI_CALLER),
  );
  if (options.json) console.log(JSON.stringify(receipt));
  else printReceipt(receipt);
}

const PAGE = 500;

export async function list(environment: Environment, options: JsonOption): Promise<void> {
  const { keys, damaged } = await withKeys(environment, async (deps) => {
    const all: KeyInfo[] = [];
    const faulty: string[] = [];
    for (let after: string | undefined, more = true; more; ) {
      const page = await listKeys(deps, ['*'], { after, limit: PAGE }, CLI_CALLER);
      all.push(...page.keys);
      faulty.push(...(page.damaged ?? []));
      after = page.next_cursor;
      more = after !== undefined;
    }
    return { keys: all, damaged: faulty };
  });
  if (options.json) {
    console.log(JSON.stringify({ keys, ...(damaged.length === 0 ? {} : { damaged }) }));
    return;
  }
  for (const key of keys) console.log(lineOf(key));
  for (const name of damaged) console.log(`${name}  damaged`);
}

/** Prints the key and its versions, without key material. */
export async function show(environment: Environment, name: string, options: JsonOption): Promise<void> {
  const key = await withKeys(environment, (deps) => readKey(deps, name, CLI_CALLER));
  if (options.json) console.log(JSON.stringify(key));
  else printDetail(key);
}

function printDetail({ versions, damaged_versions: damaged = [], ...facts }: KeyDetail): void {
  for (const [fact, value] of Object.entries(facts)) console.log(`${fact}: ${value ?? 'never'}`);
  for (const { version, state, kcv, created_at } of versions)
    console.log(['version', version, state, kcv, created_at].join('  '));
  for (const version of damaged) console.log(`version  ${version}  damaged`);
}

function printReceipt({ audit, kek_ids, ...facts }: DestroyReceipt): void {
  for (const [fact, value] of Object.entries(facts)) console.log(`${fact}: ${value}`);
  console.log(`kek_ids: ${kek_ids.join(' ')}`);
  console.log(`audit: ${audit.seq}:${audit.hash}`);
}

function printKey(key: KeyInfo, options: JsonOption): void {
  console.log(options.json ? JSON.stringify(key) : lineOf(key));
}

function lineOf({ name, state, version, kcv, created_at, holder }: KeyInfo): string {
  return [name, state, version, kcv, created_at, ...(holder === undefined ? [] : [holder])].join('  ');
}

function parsed<S extends z.ZodType>(schema: S, input: unknown): z.infer<S> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new UsageError(
    result.error.issues
      .map(({ path, message }) => [path.join('.'), message].filter(Boolean).join(': '))
      .join('; '),
  );
}
