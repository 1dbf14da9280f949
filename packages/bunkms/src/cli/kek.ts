import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BundocOptions } from '@bundoc/shared/cli/bundoc-access';
import { type AddCommands, bundocCommand, command, parserOf } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { type KekInfo, type KekStatus, kekIdSchema, type RetireKek } from '@bundoc/shared/contract/kek';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
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
import { Vault } from '../vault/vault.ts';
import { CliFailure, EXIT } from './errors.ts';
import { bundocOf, fetchWrappings } from './fetch-wrappings.ts';
import { addKekShareCommands } from './kek-shares.ts';
import { type CliDeps, pagesOf, withKeys } from './open-kms.ts';
import { newKek, RingFile } from './ring-file.ts';

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

/** `bunkms kek …`: the key encryption keys, their rotation and their shares. No command shows a KEK. */
export const addKekCommands: AddCommands = (program, environment) => {
  const group = program.command('kek').description('key encryption keys; named by their ids');
  const kekId = parserOf(kekIdSchema);
  command(group, 'status', 'shows the current KEK and the progress of a rotation').action(async (options) => {
    const status = await withKeks(environment, kekStatus);
    print(options, status, () => statusLines(status));
  });
  command(group, 'list', 'all KEKs, and what is wrapped with each').action(async (options) => {
    const { keks } = await withKeks(environment, kekStatus);
    print(options, { keks }, () => keks.map(kekLine));
  });
  command(
    group,
    'add',
    'adds a new KEK to the ring, plain or sealed; "kek rotate" makes it the current one',
  ).action(async (options) => {
    const file = new RingFile(readConfig(environment));
    const kek = newKek();
    await file.add(kek, await file.read());
    const [id] = new Vault([kek]).kekIds;
    print(options, { id }, () => [
      `${id} is in ${file.path}: running services read it within seconds; put a copy of the file into a safe before "bunkms kek rotate"`,
    ]);
  });
  command(group, 'remove', 'takes a retired KEK out of a sealed ring; backups that need it open no more')
    .argument('<kek-id>', 'that KEK', kekId)
    .action((id, options) => kekRemove(environment, id, options));
  // It waits for running services that have not read the KEK from their ring yet.
  command(group, 'rotate', 'makes the staged or the named KEK current, and wraps everything with it')
    .argument('[kek-id]', 'a KEK of the ring', kekId)
    .option('--no-wait', 'leave the wrapping to the running server')
    .action(async (id, options) => {
      const status = await withKeks(environment, async (deps) => {
        await rotateKek(deps, defined({ kek_id: id }), CLI_CALLER, HELD_WAIT_MS);
        return options.wait ? rewrapAll(deps) : kekStatus(deps);
      });
      print(options, status, () => statusLines(status));
    });
  command(group, 'verify', 'unwraps every version of every key; exit code 1 names what does not open').action(
    (options) => kekVerify(environment, options),
  );
  command(group, 'unfetched', 'lists keys whose holders may have copies that only a former KEK opens')
    .argument('<kek-id>', 'that KEK', kekId)
    .action(async (id, options) => {
      const keys = await withKeks(environment, (deps) => allUnfetched(deps, id));
      print(options, { keys }, () => keys);
    });
  bundocCommand(group, 'retire', 'retires a KEK, once nothing is wrapped with it')
    .argument('<kek-id>', 'that KEK', kekId)
    .option(
      '--fetch',
      'first have Bundoc open the projects of those keys to fetch the new wrappings; takes 15 minutes at most',
    )
    .option('--accept-unfetched', 'even if "kek unfetched" lists keys')
    .option('--accept-damaged', 'even if damaged versions are wrapped with it')
    .action((id, options) => kekRetire(environment, id, options));
  addKekShareCommands(group, environment);
};

/** Takes a retired KEK out of a sealed ring. A plain one has lines that an editor can delete. */
async function kekRemove(environment: Environment, kekId: string, options: JsonOption): Promise<void> {
  const file = new RingFile(readConfig(environment));
  const { keks, slots } = await file.read();
  if (slots.length === 0)
    throw new CliFailure(`the ring is plain: delete the line of the KEK in ${file.path}`, EXIT.conflict);
  const kept = keks.filter((kek) => new Vault([kek]).currentKekId !== kekId);
  if (kept.length === keks.length) throw new CliFailure(`the ring has no KEK ${kekId}`, EXIT.notFound);
  const { keks: known } = await withKeks(environment, kekStatus);
  const state = known.find(({ id }) => id === kekId)?.state ?? 'unknown';
  if (state !== 'retired')
    throw new CliFailure(`${kekId} is ${state}: retire it first by "bunkms kek retire"`, EXIT.conflict);
  await file.write({ keks: kept, slots });
  print(options, { id: kekId }, () => [`${kekId} is not in the ring any more`]);
}

/** Makes the last KEK of the ring the current one, unless it is, and wraps everything with it. */
export function rotateToLast(environment: Environment): Promise<KekStatus> {
  return withKeks(environment, async (deps) => {
    const last = deps.vault.kekIds.at(-1);
    const status = await kekStatus(deps);
    const isOver = status.rotation === undefined || status.rotation.completed_at !== undefined;
    if (last === status.current && isOver) return status;
    if (last !== status.current) await rotateKek(deps, defined({ kek_id: last }), CLI_CALLER, HELD_WAIT_MS);
    return await rewrapAll(deps);
  });
}

/** Wraps everything with the current KEK. Either this process or a server does it; the other one watches. */
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
async function kekVerify(environment: Environment, options: JsonOption): Promise<void> {
  const found = await withKeks(environment, async (deps) => {
    using progress = createProgress('{bar} {value}/{total} keys, {eta_formatted} left');
    const { keys } = await deps.store.counts();
    progress.start(keys);
    let done = 0;
    const sum = { checked: 0, under_others: 0, damaged: [] as string[] };
    for await (const page of pagesOf((after) => verifyWrapping(deps, { after, limit: PAGE }, CLI_CALLER))) {
      sum.checked += page.checked;
      sum.under_others += page.under_others;
      sum.damaged.push(...page.damaged);
      done = Math.min(done + PAGE, keys);
      progress.update(done);
    }
    return { current: deps.vault.currentKekId, ...sum };
  });
  const { checked, under_others: underOthers, damaged, current } = found;
  print(options, found, () => [
    `open: ${counted(checked, 'version')}, ${checked - underOthers} with the current KEK ${current}`,
  ]);
  if (damaged.length > 0) throw new CliFailure(`keys do not open: ${damaged.join(', ')}`);
  if (underOthers > 0) throw new CliFailure(`wrapped with another KEK: ${counted(underOthers, 'version')}`);
}

/** Retires a KEK that is no longer needed, or lists the reasons against it. */
async function kekRetire(
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
  let isRepeated = false;
  const retired = await withKeks(environment, async (deps) => {
    const { keks } = await kekStatus(deps);
    isRepeated = keks.some(({ id, state }) => id === kekId && state === 'retired');
    if (bundoc !== undefined && !isRepeated) await fetchWrappings(bundoc, () => allUnfetched(deps, kekId));
    try {
      return await retireKek(deps, wanted, CLI_CALLER);
    } catch (error) {
      if (!hasCode(error, 'kek_unfetched')) throw error;
      const keys = await allUnfetched(deps, kekId);
      print(options, { keys }, () => keys);
      throw error;
    }
  });
  print(options, retired, () => [
    `${retired.id} ${isRepeated ? 'was retired before' : 'is retired'}; it may leave the ring. Backups from before need it: keep a copy. audit: ${retired.audit.seq}:${retired.audit.hash}`,
  ]);
}

/** Keys whose holders may have copies only under that KEK or older ones. */
async function allUnfetched(deps: KekDeps, kekId: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { keys } of pagesOf((after) => listStaleCopies(deps, kekId, { after, limit: PAGE })))
    names.push(...keys);
  return names;
}

function statusLines({ current, keks, rotation }: KekStatus): string[] {
  const lines = [`current: ${current}`, ...keks.map(kekLine)];
  if (rotation === undefined) return lines;
  const { from, started_at: startedAt, completed_at: completedAt, total, done } = rotation;
  const end = completedAt === undefined ? 'not complete' : `complete since ${completedAt}`;
  return [...lines, `rotation from ${from}, ${startedAt}: ${done} of ${counted(total, 'version')}, ${end}`];
}

function kekLine({ id, state, in_ring: inRing, versions, secrets, since }: KekInfo): string {
  const ring = inRing ? 'in the ring' : 'not in the ring';
  return rowLine(id, state, ring, counted(versions, 'version'), counted(secrets, 'secret'), since);
}
