import type { Environment } from '@bundoc/shared/config';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { verifyChain } from '../audit/chain.ts';
import { KeyVerification } from '../audit/verify-keys.ts';
import type { KmsStore } from '../store/port.ts';
import { CliFailure } from './errors.ts';
import { withKms, withStore } from './open-kms.ts';
import { createProgress, type Progress } from './progress.ts';

const PAGE = 1_000;

/** Prints the place of the last record as a receipt, which {@link verifyAudit} takes. Needs no KEK: it proves nothing by itself. */
export async function auditHead(environment: Environment, options: { json?: true }): Promise<void> {
  const head = await withStore(environment, (store) => store.auditHead());
  console.log(options.json ? JSON.stringify(head) : `${head.seq}:${head.hash}`);
}

/**
 * Walks the whole audit chain, which must hold the record of each receipt, and holds every key against it.
 *
 * @throws CliFailure naming the first broken record, or the keys that are damaged.
 */
export async function verifyAudit(
  environment: Environment,
  options: { receipt: readonly AuditReceipt[]; json?: true },
): Promise<void> {
  const { verdict, damaged } = await withKms(environment, async ({ store, state: { chainKey } }) => {
    const keys = new KeyVerification();
    using progress = createProgress('{bar} {value}/{total} records, {eta_formatted} left');
    progress.start((await store.auditHead()).seq);
    const chain = await verifyChain(chainKey, allRecords(store, keys, progress), options.receipt);
    return { verdict: chain, damaged: chain.intact ? await keys.damagedKeys(store, chainKey) : [] };
  });
  if (options.json)
    console.log(JSON.stringify({ ...verdict, ...(damaged.length === 0 ? {} : { damaged_keys: damaged }) }));
  if (!verdict.intact)
    throw new CliFailure(`the audit chain is broken: record ${verdict.fault.seq} is ${verdict.fault.reason}`);
  if (!options.json) console.log(`${verdict.head.seq} records, intact, head ${verdict.head.hash}`);
  if (damaged.length > 0) throw new CliFailure(`keys are not what the chain says: ${damaged.join(', ')}`);
}

async function* allRecords(
  store: KmsStore,
  keys: KeyVerification,
  progress: Progress,
): AsyncGenerator<AuditRecord> {
  for (let after = 0, more = true; more; ) {
    const page = await store.listAudit({ after, limit: PAGE });
    for (const record of page.items) {
      keys.note(record);
      yield record;
    }
    after = page.items.at(-1)?.seq ?? after;
    progress.update(after);
    more = page.more;
  }
}
