import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { dekNameOf, type KeyInfo } from '@bundoc/shared/contract/keys';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { opens } from '../keys/open-dek.ts';
import { authenticate, stampOf } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import { ChainWalk, isGenuine } from '../records/chain-walk.ts';
import { draftNow } from '../records/draft-now.ts';
import type { StoredKey } from '../records/key-record.ts';
import type { AuditStore } from '../store/audit.ts';
import type { KeyChange, KeyStore } from '../store/keys.ts';
import type { Keks } from '../vault/keks.ts';
import type { Vault } from '../vault/vault.ts';
import { ChainHistory } from './chain-history.ts';
import { type Evidence, lacksKek, numbersTo, type Plan, planRecovery } from './plan-recovery.ts';
import {
  type DeletedProject,
  openDataFolder,
  type ProjectKey,
  projectsIn,
  readProjectKey,
} from './project-keys.ts';

export interface RecoverDeps {
  readonly store: KeyStore & AuditStore;
  readonly vault: Vault;
  /** Refreshes the KEK state of the vault. */
  readonly keks: Pick<Keks, 'refresh'>;
  readonly chainKey: KeyObject;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly caller: Caller;
}

export interface RecoverOptions {
  /** Reports what would be done, and changes nothing. */
  readonly dryRun: boolean;
  readonly onProgress?: (done: number, total: number) => void;
}

/** The result for the key of one project, or for a lost key. */
export interface RecoveredProject {
  /** Absent for a lost key: the folder has no project with it. */
  readonly project?: string;
  readonly key?: string;
  readonly outcome:
    | 'sound'
    | 'recovered'
    | 'deleted'
    | 'lost'
    | Exclude<Plan['outcome'], 'recover' | 'sound'>;
  /** For a recovered key: its new state, and the versions from the project's file. */
  readonly state?: KeyInfo['state'];
  readonly versions?: readonly number[];
  /** Versions that are lost. */
  readonly lost_versions?: readonly number[];
  readonly problem?: string;
}

/** The audit chain is broken, so its records of destroyed keys are unreliable. */
class ChainBroken extends Error {
  override readonly name = 'ChainBroken';
}

/** How often the recovery retries when another process changes the key. */
const ROUNDS_MAX = 16;
const PAGE = 1_000;

/**
 * Rebuilds lost keys, or lost versions of keys, from the wrapped keys in Bundoc's project files. Each key is
 * one write with its CRITICAL audit record. So it may be interrupted and run again at any time, even while
 * the service runs.
 *
 * It never overwrites keys that match the audit chain, and never restores keys that the chain knows as
 * destroyed. A key whose later state the chain does not know comes back disabled, and with an unknown holder.
 * A deletion marker in a folder is not trusted.
 *
 * @param dataDir Bundoc's data folder, or a folder of backups.
 * @returns the result for each project's key, one by one. Then each other key of the store that lacks a
 *   version.
 * @throws NoDataFolder, ChainBroken, AppError of the store.
 */
export async function* recoverKeys(
  deps: RecoverDeps,
  dataDir: string,
  options: RecoverOptions,
): AsyncGenerator<RecoveredProject> {
  using folder = openDataFolder(dataDir);
  const projects = projectsIn(folder);
  const history = await walkChain(deps, options);
  if (!options.dryRun) await recordRun(deps);
  for (const [index, project] of projects.entries()) {
    const projectKey = readProjectKey(folder, project);
    if ('problem' in projectKey) yield { project, outcome: 'unreadable', problem: projectKey.problem };
    else if ('keyDestroyedAt' in projectKey) yield await reportDeleted(deps, projectKey);
    else yield await recoverKey(deps, projectKey, history, options);
    options.onProgress?.(index + 1, projects.length);
  }
  yield* lostKeys(deps, history, new Set(projects.map(dekNameOf)));
}

/** The keys with lost versions among those that the folder has no project of. */
async function* lostKeys(
  deps: RecoverDeps,
  history: ChainHistory,
  inFolder: ReadonlySet<string>,
): AsyncGenerator<RecoveredProject> {
  for (const key of history.names()) {
    if (inFolder.has(key)) continue;
    const stored = await deps.store.findKey(key, 'all');
    const authentic = stored && authenticate(deps, key, stored);
    const state = authentic?.record.state ?? history.of(key)?.snapshot?.state;
    if (state === 'destroyed') continue;
    const { version = 0 } = authentic?.record ?? history.of(key)?.snapshot ?? {};
    const versions = new Map((authentic?.versions ?? []).map((one) => [one.version, one]));
    const lost = numbersTo(version).filter((number) => {
      const one = versions.get(number);
      if (one === undefined) return true;
      // Not lost: its KEK may still be put into the ring.
      return one.state !== 'destroyed' && !lacksKek(deps.vault, one.wrapped) && !opens(deps.vault, key, one);
    });
    if (authentic === undefined || lost.length > 0) yield { key, outcome: 'lost', ...lostOf(lost) };
  }
}

async function walkChain(
  { store, chainKey }: RecoverDeps,
  { onProgress }: RecoverOptions,
): Promise<ChainHistory> {
  const history = new ChainHistory();
  const walk = new ChainWalk(chainKey);
  const total = (await store.auditHead()).seq;
  for (let more = true; more; ) {
    const page = await store.listAudit({ after: walk.head.seq, limit: PAGE });
    for (const record of page.items) {
      walk.take(record);
      history.note(record);
    }
    const { fault } = walk;
    if (fault !== undefined)
      throw new ChainBroken(
        `the audit chain is broken: record ${fault.seq} is ${fault.reason}. Its records of destroyed keys are unreliable: restore a backup, or recover into a new store`,
      );
    onProgress?.(walk.head.seq, total);
    more = page.more;
  }
  return history;
}

async function recoverKey(
  deps: RecoverDeps,
  projectKey: ProjectKey,
  chain: ChainHistory,
  { dryRun }: RecoverOptions,
): Promise<RecoveredProject> {
  const { store, vault, clock, caller } = deps;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const evidence = await evidenceOf(deps, projectKey, chain);
    const time = new Date(clock.now()).toISOString();
    const plan = planRecovery(vault, evidence, { caller, time, source: 'project-file' });
    if (dryRun) return reportOf(projectKey, plan);
    if (plan.outcome === 'recover') {
      if (await put(deps, plan.change, evidence)) return reportOf(projectKey, plan);
      // Another process changed the key or the current KEK.
      await deps.keks.refresh();
      continue;
    }
    if (plan.outcome !== 'sound') await store.appendAudit([refusalOf(deps, projectKey, plan)]);
    return reportOf(projectKey, plan);
  }
  throw new AppError('overloaded');
}

/**
 * Reports a project without key files but with a deletion marker. Only the store can tell whether the marker
 * is true.
 */
async function reportDeleted(
  { store }: RecoverDeps,
  { project, name, keyDestroyedAt }: DeletedProject,
): Promise<RecoveredProject> {
  const stored = await store.findKey(name, 'current');
  const isBack = stored !== undefined && stored.record?.state !== 'destroyed';
  return {
    project,
    key: name,
    outcome: 'deleted',
    ...(isBack
      ? { problem: `deleted.json says that the key was destroyed at ${keyDestroyedAt}, but the key exists` }
      : {}),
  };
}

async function evidenceOf(deps: RecoverDeps, projectKey: ProjectKey, chain: ChainHistory): Promise<Evidence> {
  const { name } = projectKey;
  const stored = await deps.store.findKey(name, 'all');
  // The store finds the latest change by an index; the walk sees the records themselves.
  const isLatest = (stored?.lastChange?.seq ?? 0) >= (chain.of(name)?.lastChange ?? 0);
  const authentic = stored !== undefined && isLatest ? authenticate(deps, name, stored) : undefined;
  await followChanges(deps, name, stored, chain);
  return { projectKey, stored, authentic, history: chain.of(name) };
}

/** Continues the walk up to the state of a key that was read: others may have changed it since. */
async function followChanges(
  { store, chainKey }: RecoverDeps,
  key: string,
  stored: StoredKey | undefined,
  chain: ChainHistory,
): Promise<void> {
  const last = stored?.lastChange?.seq ?? 0;
  for (let after = chain.of(key)?.lastChange ?? 0; after < last; ) {
    const page = await store.listAudit({ key, uses: false, after, limit: PAGE });
    for (const record of page.items)
      if (record.seq <= last && isGenuine(chainKey, record)) chain.note(record);
    if (!page.more) return;
    after = page.items.at(-1)?.seq ?? last;
  }
}

/** @returns false when the key or the current KEK has changed in the meantime. */
async function put(
  { store }: RecoverDeps,
  change: KeyChange,
  { stored, authentic }: Evidence,
): Promise<boolean> {
  if (authentic === undefined) return (await store.replaceKey(change, stored?.lastChange?.seq)) !== undefined;
  // Existing versions may not open, and then cannot be wrapped with the current KEK. They do not change.
  const versions = change.versions.filter((version) => !authentic.versions.includes(version));
  const receipt = await store.updateKey({ ...change, versions, previous: stampOf(authentic.record) });
  return receipt !== undefined;
}

async function recordRun({ store, clock, caller }: RecoverDeps): Promise<void> {
  await store.appendAudit([draftNow({ clock }, caller, 'store.recover', { severity: 'CRITICAL' })]);
}

const REFUSALS = {
  destroyed: 'key_destroyed',
  conflict: 'key_conflict',
  unreadable: 'key_unreadable',
} as const;

function refusalOf(
  { clock, caller }: RecoverDeps,
  { name, id }: ProjectKey,
  plan: Exclude<Plan, { outcome: 'sound' | 'recover' }>,
): AuditDraft {
  const facts = { key: name, code: REFUSALS[plan.outcome], detail: { key_id: id } };
  return draftNow({ clock }, caller, 'key.recover', { severity: 'CRITICAL', outcome: 'refused', ...facts });
}

function reportOf({ project, name: key }: ProjectKey, plan: Plan): RecoveredProject {
  switch (plan.outcome) {
    case 'sound':
      return { project, key, outcome: 'sound', ...lostOf(plan.lost) };
    case 'recover': {
      const { state } = plan.change.record;
      return { project, key, outcome: 'recovered', state, versions: plan.added, ...lostOf(plan.lost) };
    }
    case 'conflict':
    case 'unreadable':
      return { project, key, outcome: plan.outcome, problem: plan.problem };
    default:
      return { project, key, outcome: plan.outcome };
  }
}

function lostOf(lost: readonly number[]): { lost_versions?: readonly number[] } {
  return lost.length === 0 ? {} : { lost_versions: lost };
}
