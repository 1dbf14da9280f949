import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { KeyInfo } from '@bundoc/shared/contract/keys';
import { authenticate, type KeyDeps } from '../keys/stored-key.ts';
import { isGenuine } from '../records/chain-walk.ts';
import type { NamedKey } from '../records/key-record.ts';
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
  for (let after: string | undefined, more = true; more; ) {
    const page = await deps.store.listKeys(['*'], { after, limit: PAGE });
    for (const item of page.items) {
      const key = await reviewOf(deps, item);
      if (key !== undefined) keys.push(key);
    }
    after = page.items.at(-1)?.name;
    more = page.more;
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
  for (let after: number | undefined, more = true; more; ) {
    const page = await deps.store.listAudit({ key: name, uses: false, after, limit: PAGE });
    for (const change of page.items.filter((one) => isGenuine(deps.chainKey, one))) {
      if (hasUnknownState(change)) {
        waiting ??= { was: snapshot?.state ?? 'unknown', since: change.time };
        const lost = change.detail?.['lost_withdrawal'];
        if (typeof lost === 'string') waiting = { ...waiting, lost_withdrawal: lost };
      } else if (change.action === 'key.enable' && change.outcome === 'allowed') waiting = undefined;
      snapshot = afterChange(snapshot, change);
    }
    after = page.items.at(-1)?.seq;
    more = page.more;
  }
  return waiting && { name, ...waiting, version: record.version };
}

/** A key that failed was damaged in a backup: a recovery brings it back from a project's file. */
function hasUnknownState({ action, outcome, detail }: AuditRecord): boolean {
  return action === 'key.recover' && (outcome === 'failed' || detail?.['later_state'] === 'unknown');
}
