import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { KeyInfo } from '@bundoc/shared/contract/keys';
import { authenticate, type KeyDeps } from '../keys/stored-key.ts';
import { isGenuine } from '../records/chain-walk.ts';
import type { NamedKey } from '../records/key-record.ts';
import { allItems } from '../store/page.ts';
import { afterChange, type KeySnapshot } from './key-snapshot.ts';

/** A key that a restore or a recovery brought back disabled, because its state was unknown. */
export interface KeyToReview {
  readonly name: string;
  /** Its last known state before. */
  readonly was: KeyInfo['state'] | 'unknown';
  /** How an end of the chain that a rollback has lost withdrew it, such as `key.destroy`. */
  readonly lost_withdrawal?: string;
  /** When it came back. */
  readonly since: string;
  readonly version: number;
}

const PAGE = 500;

/** The keys that wait for an administrator, by name. Damaged keys are left out. */
export async function keysToReview(
  deps: Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>,
): Promise<KeyToReview[]> {
  const keys: KeyToReview[] = [];
  const read = (after?: string) => deps.store.listKeys(['*'], { after, limit: PAGE });
  for await (const item of allItems(read, ({ name }) => name)) {
    const key = await reviewOf(deps, item);
    if (key !== undefined) keys.push(key);
  }
  return keys;
}

async function reviewOf(
  deps: Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>,
  item: NamedKey,
): Promise<KeyToReview | undefined> {
  const { name } = item;
  const record = authenticate(deps, name, item)?.record;
  if (record?.state !== 'disabled') return undefined;
  let snapshot: KeySnapshot | undefined;
  let waiting: Omit<KeyToReview, 'name' | 'version'> | undefined;
  const read = (after?: number) => deps.store.listAudit({ key: name, uses: false, after, limit: PAGE });
  for await (const change of allItems(read, ({ seq }) => seq)) {
    if (!isGenuine(deps.chainKey, change)) continue;
    if (hasUnknownState(change)) {
      waiting ??= { was: snapshot?.state ?? 'unknown', since: change.time };
      const lost = change.detail?.['lost_withdrawal'];
      if (typeof lost === 'string') waiting = { ...waiting, lost_withdrawal: lost };
    } else if (change.action === 'key.enable' && change.outcome === 'allowed') waiting = undefined;
    snapshot = afterChange(snapshot, change);
  }
  return waiting && { name, ...waiting, version: record.version };
}

/** A key that failed was damaged in a backup: a recovery brings it back from a project's file. */
function hasUnknownState({ action, outcome, detail }: AuditRecord): boolean {
  return action === 'key.recover' && (outcome === 'failed' || detail?.['later_state'] === 'unknown');
}
