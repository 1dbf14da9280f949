import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from '../records/caller.ts';
import { type AuditDraft, recordHash } from '../records/chain.ts';
import { draftNow } from '../records/draft-now.ts';
import type { AuditStore } from '../store/audit.ts';
import { allItems } from '../store/page.ts';

/** The action of a split of the KEKs into shares. */
const SPLIT_ACTION = 'kek.split';
const PAGE = 1_000;

/** What a record says of a split. */
interface RecordedSplit {
  readonly id: string;
  readonly time: string;
  /** Of the KEKs inside. */
  readonly kekIds: readonly string[];
}

/**
 * The record of a split, without a secret: before its shares are written, and once more when that fails.
 */
export function splitDraft(
  deps: { readonly clock: Pick<Clock, 'now'> },
  caller: Caller,
  { id, shares, threshold }: { readonly id: string; readonly shares: number; readonly threshold: number },
  kekIds: readonly string[],
  outcome: 'allowed' | 'failed' = 'allowed',
): AuditDraft {
  const detail = { split: id, shares, threshold, kek_ids: kekIds.join(' ') };
  return draftNow(deps, caller, SPLIT_ACTION, { severity: 'CRITICAL', outcome, detail });
}

/** The newest split whose shares were written; undefined when there is none. */
export async function newestSplit({
  store,
  chainKey,
}: {
  readonly store: Pick<AuditStore, 'listAudit'>;
  readonly chainKey: KeyObject;
}): Promise<RecordedSplit | undefined> {
  const splits = new Map<string, RecordedSplit>();
  // Only commands split the ring.
  const read = (after?: number) => store.listAudit({ after, limit: PAGE, actor: 'cli', bulk: false });
  for await (const record of allItems(read, ({ seq }) => seq)) {
    if (record.action !== SPLIT_ACTION || !isGenuine(chainKey, record)) continue;
    const { time, outcome, detail } = record;
    const id = String(detail?.['split']);
    if (outcome === 'allowed') splits.set(id, { id, time, kekIds: String(detail?.['kek_ids']).split(' ') });
    else splits.delete(id);
  }
  return [...splits.values()].at(-1);
}

function isGenuine(chainKey: KeyObject, record: AuditRecord): boolean {
  return recordHash(chainKey, record.prev_hash, record.seq, record) === record.hash;
}
