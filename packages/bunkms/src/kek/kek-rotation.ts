import { setTimeout as sleep } from 'node:timers/promises';
import { counted } from '@bundoc/shared/cli/counted';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import type {
  KekInfo,
  KekStatus,
  KekVerification,
  RetiredKek,
  RetireKek,
  RotateKek,
  UnfetchedPage,
} from '@bundoc/shared/contract/kek';
import { requireOpens } from '../keys/open-dek.ts';
import { authenticate, type KeyDeps } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import { draftNow } from '../records/draft-now.ts';
import type { KekState } from '../records/kek-state.ts';
import type { NamedKey } from '../records/key-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { ClusterStore } from '../store/cluster.ts';
import type { InstallationStore } from '../store/installation.ts';
import type { KekStore } from '../store/kek.ts';
import { allItems, type PageQuery } from '../store/page.ts';
import type { Keks } from '../vault/keks.ts';

export interface KekDeps extends KeyDeps {
  readonly store: KeyDeps['store'] & KekStore & InstallationStore & ClusterStore;
  readonly keks: Pick<Keks, 'refresh' | 'reload'>;
}

/** The states of the KEKs, and the progress of the latest rotation. */
export async function kekStatus(deps: KekDeps): Promise<KekStatus> {
  const { vault, store, keks } = deps;
  const { current, keks: known, rotation } = await keks.refresh();
  const uses = new Map((await store.kekUses()).map((use) => [use.kekId, use]));
  const ids = new Set([...known.keys(), ...uses.keys()]);
  const infos = [...ids].map((id): KekInfo => {
    const { standing, since } = known.get(id) ?? {};
    const { versions = 0, secrets = 0 } = uses.get(id) ?? {};
    return {
      id,
      state: standing ?? 'unknown',
      ...defined({ since }),
      in_ring: vault.holds(id),
      versions,
      secrets,
    };
  });
  if (rotation === undefined) return { current, keks: infos };
  const { from, startedAt, completedAt } = rotation;
  return {
    current,
    keks: infos,
    rotation: {
      from,
      started_at: startedAt,
      ...defined({ completed_at: completedAt }),
      total: infos.reduce((sum, { versions }) => sum + versions, 0),
      done: uses.get(current)?.versions ?? 0,
    },
  };
}

/** Maximum retries: others may rotate or stage at the same time. */
const ROUNDS_MAX = 16;
/** How often to check again whether all services hold a KEK, milliseconds. */
const HELD_CHECK_MS = 250;

/**
 * Makes a KEK the current one, with a record. From then on every process wraps with it, and `KeyRewrap`
 * rewraps existing keys. If the KEK is already current, the keys that are left under other KEKs are
 * rewrapped.
 *
 * @param waitMs how long to wait until every running service holds the KEK, milliseconds.
 * @throws AppError `kek_not_found`; `kek_unusable` also when a running service lacks the KEK.
 */
export async function rotateKek(deps: KekDeps, wanted: RotateKek, caller: Caller, waitMs = 0): Promise<void> {
  const untilMs = deps.clock.monotonic() + waitMs;
  await deps.keks.reload();
  for (let round = 0; round < ROUNDS_MAX; ) {
    const state = await deps.keks.refresh();
    const kekId = nextKek(deps, state, wanted);
    const draft = draftOf(deps, caller, 'kek.rotate', { kek_id: kekId, from: state.current });
    try {
      await deps.audit.append(draft, {
        jti: caller.jti,
        kekRecord: state.seq,
        kekHeldByAllNodes: { kekId, now: draft.time },
      });
      await deps.keks.refresh();
      return;
    } catch (error) {
      if (hasCode(error, 'kek_unusable')) {
        if (deps.clock.monotonic() >= untilMs)
          throw new AppError('kek_unusable', {
            detail:
              'a running service lacks the KEK: it reads its ring file every few seconds, or at a restart; its log says what it cannot open',
          });
        await sleep(HELD_CHECK_MS);
      } else if (hasCode(error, 'precondition_failed')) round++;
      else throw error;
    }
  }
  throw new AppError('overloaded');
}

function nextKek({ vault }: KekDeps, { keks, current }: KekState, { kek_id: named }: RotateKek): string {
  if (named !== undefined) {
    const standing = keks.get(named)?.standing;
    if (standing === undefined) throw new AppError('kek_not_found');
    if (standing === 'retired') throw new AppError('kek_unusable', { detail: 'the KEK is retired' });
    if (!vault.holds(named)) throw new AppError('kek_unusable', { detail: 'the ring lacks the KEK' });
    return named;
  }
  const staged = vault.kekIds.filter((kekId) => keks.get(kekId)?.standing === 'staged');
  const [one, ...others] = staged;
  if (one === undefined)
    throw new AppError('kek_unusable', { detail: `no KEK is staged; the current one is ${current}` });
  if (others.length > 0) throw new AppError('kek_unusable', { detail: 'several KEKs are staged: name one' });
  return one;
}

/**
 * Retires a KEK, with a record: nothing in the store is wrapped with it, and nothing will be. Its former
 * wrappings are then erased from the files of the store. A repetition changes nothing and has the record of
 * the retirement.
 *
 * @throws AppError `kek_not_found`; `kek_in_use` for the current KEK, and while something is wrapped with
 *   it; `kek_unfetched` while holders may have copies that are wrapped only with it.
 */
export async function retireKek(deps: KekDeps, wanted: RetireKek, caller: Caller): Promise<RetiredKek> {
  const { store, keks, audit } = deps;
  const { kek_id: kekId, accept_unfetched: acceptUnfetched, accept_damaged: acceptDamaged } = wanted;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const state = await keks.refresh();
    requireRetirable(state, kekId);
    const isRepeated = state.keks.get(kekId)?.standing === 'retired';
    const earlier = isRepeated ? await retirementOf(deps, kekId) : undefined;
    if (earlier !== undefined) return earlier;
    if (acceptDamaged) await requireOnlyDamaged(deps, kekId);
    else await requireUnused(deps, kekId);
    if (!acceptUnfetched && (await firstUnfetched(deps, kekId)) !== undefined)
      throw new AppError('kek_unfetched');
    await store.scrub();
    const draft = draftOf(deps, caller, 'kek.retire', {
      kek_id: kekId,
      accept_unfetched: acceptUnfetched,
      accept_damaged: acceptDamaged,
    });
    const condition = {
      jti: caller.jti,
      kekRecord: state.seq,
      ...(acceptDamaged ? {} : { requireUnusedKek: kekId }),
    };
    try {
      const receipt = await audit.append(draft, condition);
      await keks.refresh();
      return { id: kekId, state: 'retired', audit: receipt };
    } catch (error) {
      if (!hasCode(error, 'precondition_failed')) throw error;
    }
  }
  throw new AppError('overloaded');
}

/** The answer of the earlier retirement of a KEK. */
async function retirementOf({ store }: KekDeps, kekId: string): Promise<RetiredKek | undefined> {
  const isIts = ({ action, detail }: AuditRecord) => action === 'kek.retire' && detail?.['kek_id'] === kekId;
  const record = (await store.kekRecords()).findLast(isIts);
  return record && { id: kekId, state: 'retired', audit: { seq: record.seq, hash: record.hash } };
}

function requireRetirable({ keks }: KekState, kekId: string): void {
  const standing = keks.get(kekId)?.standing;
  if (standing === undefined) throw new AppError('kek_not_found');
  if (standing === 'current') throw new AppError('kek_in_use', { detail: 'it is the current KEK' });
}

async function requireUnused({ store }: KekDeps, kekId: string): Promise<void> {
  const use = (await store.kekUses()).find((one) => one.kekId === kekId);
  if (use !== undefined)
    throw new AppError('kek_in_use', {
      detail: `wrapped with it: ${counted(use.versions, 'version')} of keys, ${counted(use.secrets, 'secret')}`,
    });
}

const PAGE = 100;

/** @throws AppError `kek_in_use` when something that can be opened is wrapped with the KEK. */
async function requireOnlyDamaged(deps: KekDeps, kekId: string): Promise<void> {
  if (!deps.vault.holds(kekId))
    throw new AppError('kek_in_use', { detail: 'it is not in the ring, so it is unknown what it can open' });
  const use = (await deps.store.kekUses()).find((one) => one.kekId === kekId);
  if ((use?.secrets ?? 0) > 0) throw new AppError('kek_in_use', { detail: 'secrets are wrapped with it' });
  const read = (after?: string) => deps.store.listWrapped(kekId, { after, limit: PAGE });
  // A version without a key has the id as its name.
  for await (const key of allItems(read, ({ record, name }) => record?.id ?? name))
    if (checked(deps, key).opened.some((one) => one === kekId))
      throw new AppError('kek_in_use', { detail: 'versions of keys that can be opened are wrapped with it' });
}

async function firstUnfetched({ store }: KekDeps, kekId: string): Promise<string | undefined> {
  for (let after: string | undefined; ; ) {
    const { names, next } = await store.listStaleCopies(kekId, { after, limit: 1 });
    if (names[0] !== undefined || next === undefined) return names[0];
    after = next;
  }
}

/** Keys whose holders may have copies only under that KEK or older ones. @throws AppError `kek_not_found`. */
export async function listStaleCopies(
  { store, keks }: KekDeps,
  kekId: string,
  page: PageQuery<string>,
): Promise<UnfetchedPage> {
  if (!(await keks.refresh()).keks.has(kekId)) throw new AppError('kek_not_found');
  const { names, next } = await store.listStaleCopies(kekId, page);
  return { keys: [...names], ...defined({ next_cursor: next }) };
}

/** Unwraps every version of a page of keys, and reports those that do not open. */
export async function verifyWrapping(
  deps: KekDeps,
  page: PageQuery<string>,
  caller: Caller,
): Promise<KekVerification> {
  const { store, vault, audit } = deps;
  const { items, more } = await store.listKeys(['*'], page);
  const damaged: string[] = [];
  let count = 0;
  let underOthers = 0;
  for (const { name } of items) {
    const stored = await store.findKey(name, 'all');
    if (stored === undefined) continue;
    const { opened, isDamaged } = checked(deps, { name, ...stored });
    count += opened.length;
    underOthers += opened.filter((kekId) => kekId !== vault.currentKekId).length;
    if (isDamaged) damaged.push(name);
  }
  const detail = { checked: count, under_others: underOthers, damaged: damaged.length };
  audit.appendInBackground(draftNow(deps, caller, 'kek.verify', { detail }));
  const last = items.at(-1);
  return {
    checked: count,
    under_others: underOthers,
    damaged,
    ...defined({ next_cursor: more ? last?.name : undefined }),
  };
}

/** The KEKs of the versions that open, and whether some version does not. */
function checked(deps: KekDeps, stored: NamedKey): { opened: (string | undefined)[]; isDamaged: boolean } {
  const key = authenticate(deps, stored.name, stored);
  if (key === undefined) return { opened: [], isDamaged: true };
  const opened: (string | undefined)[] = [];
  let isDamaged = key.versions.length < key.record.version;
  for (const version of key.versions) {
    if (version.state === 'destroyed') continue;
    try {
      requireOpens(deps, key.record.name, version);
      opened.push(kekIdOf(version.wrapped));
    } catch (error) {
      if (!hasCode(error, 'key_damaged')) throw error;
      isDamaged = true;
    }
  }
  return { opened, isDamaged };
}

function draftOf(deps: KekDeps, caller: Caller, action: string, detail: AuditDraft['detail']): AuditDraft {
  return draftNow(deps, caller, action, { severity: 'CRITICAL', detail });
}
