import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { counted } from '@bundoc/shared/cli/counted';
import { createProgress } from '@bundoc/shared/cli/progress';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { KekInfo, KekStatus, RetireKek } from '@bundoc/shared/contract/kek';
import type { Environment } from '@bundoc/shared/runtime/config';
import {
  type KekDeps,
  kekStatus,
  listStaleCopies,
  retireKek,
  rotateKek,
  verifyWrapping,
} from '../kek/kek-rotation.ts';
import { KeyRewrap } from '../kek/rewrap-keys.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { CliFailure } from './errors.ts';
import { type BundocOptions, bundocOf, fetchWrappings } from './fetch-wrappings.ts';
import { type CliDeps, withKeys } from './open-kms.ts';

interface JsonOption {
  readonly json?: true;
}

const PAGE = 500;
/** How often to poll the progress of a rotation, milliseconds. */
const POLL_MS = 250;
/**
 * How long to wait for services to read the KEK, milliseconds. They read the ring every few seconds, and
 * count as up for 15 s after their end.
 */
const HELD_WAIT_MS = 20_000;
/** How many polls in a row may fail because the store is busy. */
const FAILURES_MAX = 20;

/** Runs an action with the KEKs of the store. New KEKs of the ring become staged first. */
function withKeks<T>(environment: Environment, action: (deps: CliDeps) => Promise<T>): Promise<T> {
  return withKeys(environment, async (deps) => {
    await deps.keks.reload();
    return action(deps);
  });
}

/** Prints the KEKs and the progress of the latest rotation. */
export async function kekShow(environment: Environment, options: JsonOption): Promise<void> {
  const status = await withKeks(environment, kekStatus);
  if (options.json) console.log(JSON.stringify(status));
  else print(status);
}

/** Prints the KEKs, one per line. */
export async function kekList(environment: Environment, options: JsonOption): Promise<void> {
  const { keks } = await withKeks(environment, kekStatus);
  if (options.json) console.log(JSON.stringify({ keks }));
  else for (const kek of keks) console.log(lineOf(kek));
}

/**
 * Makes a KEK the current one and waits until everything is wrapped with it. With `wait` false, it leaves
 * that to the running server. Either this process or a server does the work; the other one watches. Before
 * that, it waits for running services that have not read the KEK from their ring yet.
 */
export async function kekRotate(
  environment: Environment,
  kekId: string | undefined,
  options: JsonOption & { readonly wait: boolean },
): Promise<void> {
  const status = await withKeks(environment, async (deps) => {
    await rotateKek(deps, defined({ kek_id: kekId }), CLI_CALLER, HELD_WAIT_MS);
    return options.wait ? rewrapAll(deps) : kekStatus(deps);
  });
  if (options.json) console.log(JSON.stringify(status));
  else print(status);
}

async function rewrapAll(deps: KekDeps): Promise<KekStatus> {
  const rewrap = new KeyRewrap({ ...deps, caller: CLI_CALLER, holder: randomUUID() });
  using progress = createProgress('{bar} {value}/{total} versions, {eta_formatted} left');
  let status = await kekStatus(deps);
  progress.start(status.rotation?.total ?? 0);
  for (let failures = 0; status.rotation?.completed_at === undefined; ) {
    await Promise.race([rewrap.run(), sleep(POLL_MS)]);
    // While the rotation runs, here or in a server, and when the store is busy.
    await sleep(POLL_MS);
    try {
      status = await kekStatus(deps);
      failures = 0;
    } catch (error) {
      if (!hasCode(error, 'storage_unavailable', 'overloaded') || ++failures === FAILURES_MAX) throw error;
    }
    progress.update(status.rotation?.done ?? 0);
  }
  await rewrap.stop();
  return status;
}

/**
 * Unwraps every version of every key.
 *
 * @throws CliFailure when a version does not open, or is wrapped with a KEK that is not current.
 */
export async function kekVerify(environment: Environment, options: JsonOption): Promise<void> {
  const found = await withKeks(environment, async (deps) => {
    using progress = createProgress('{bar} {value}/{total} keys, {eta_formatted} left');
    const { keys } = await deps.store.counts();
    progress.start(keys);
    const sum = { checked: 0, under_others: 0, damaged: [] as string[] };
    for (let after: string | undefined, done = 0; ; done += PAGE) {
      const page = await verifyWrapping(deps, { after, limit: PAGE }, CLI_CALLER);
      sum.checked += page.checked;
      sum.under_others += page.under_others;
      sum.damaged.push(...page.damaged);
      progress.update(Math.min(done + PAGE, keys));
      after = page.next_cursor;
      if (after === undefined) return { current: deps.vault.currentKekId, ...sum };
    }
  });
  const { checked, under_others: underOthers, damaged, current } = found;
  if (options.json) console.log(JSON.stringify(found));
  else
    console.log(
      `open: ${counted(checked, 'version')}, ${checked - underOthers} with the current KEK ${current}`,
    );
  if (damaged.length > 0) throw new CliFailure(`keys do not open: ${damaged.join(', ')}`);
  if (underOthers > 0) throw new CliFailure(`wrapped with another KEK: ${counted(underOthers, 'version')}`);
}

/** Retires a KEK that is no longer needed, or lists the reasons against it. */
export async function kekRetire(
  environment: Environment,
  kekId: string,
  options: JsonOption &
    BundocOptions & { readonly acceptUnfetched?: true; readonly acceptDamaged?: true; readonly fetch?: true },
): Promise<void> {
  const wanted: RetireKek = {
    kek_id: kekId,
    accept_unfetched: options.acceptUnfetched === true,
    accept_damaged: options.acceptDamaged === true,
  };
  const bundoc = options.fetch ? await bundocOf(environment, options) : undefined;
  const retired = await withKeks(environment, async (deps) => {
    if (bundoc !== undefined) await fetchWrappings(bundoc, () => allUnfetched(deps, kekId));
    try {
      return await retireKek(deps, wanted, CLI_CALLER);
    } catch (error) {
      if (hasCode(error, 'kek_unfetched')) printNames(await allUnfetched(deps, kekId), options);
      throw error;
    }
  });
  if (options.json) console.log(JSON.stringify(retired));
  else
    console.log(
      `${retired.id} is retired; it may leave the ring. audit: ${retired.audit.seq}:${retired.audit.hash}`,
    );
}

/** Lists keys whose holders may have copies only under that KEK or older ones. */
export async function kekUnfetched(
  environment: Environment,
  kekId: string,
  options: JsonOption,
): Promise<void> {
  printNames(await withKeks(environment, (deps) => allUnfetched(deps, kekId)), options);
}

async function allUnfetched(deps: KekDeps, kekId: string): Promise<string[]> {
  const names: string[] = [];
  for (let after: string | undefined, more = true; more; ) {
    const page = await listStaleCopies(deps, kekId, { after, limit: PAGE });
    names.push(...page.keys);
    after = page.next_cursor;
    more = after !== undefined;
  }
  return names;
}

function printNames(keys: readonly string[], options: JsonOption): void {
  if (options.json) console.log(JSON.stringify({ keys }));
  else for (const name of keys) console.log(name);
}

function print({ current, keks, rotation }: KekStatus): void {
  console.log(`current: ${current}`);
  for (const kek of keks) console.log(lineOf(kek));
  if (rotation === undefined) return;
  const { from, started_at: startedAt, completed_at: completedAt, total, done } = rotation;
  const end = completedAt === undefined ? 'not complete' : `complete since ${completedAt}`;
  console.log(`rotation from ${from}, ${startedAt}: ${done} of ${counted(total, 'version')}, ${end}`);
}

function lineOf({ id, state, in_ring: inRing, versions, secrets, since }: KekInfo): string {
  const ring = inRing ? 'in the ring' : 'not in the ring';
  const uses = [counted(versions, 'version'), counted(secrets, 'secret')];
  return [id, state, ring, ...uses, since ?? ''].join('  ').trimEnd();
}
