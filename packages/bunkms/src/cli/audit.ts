import type { Environment } from '@bundoc/shared/config';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { verifyChain } from '../audit/chain.ts';
import type { KmsStore } from '../store/port.ts';
import { CliFailure } from './errors.ts';
import { withKms } from './open-kms.ts';

const PAGE = 1_000;

/**
 * Walks the whole audit chain.
 *
 * @throws CliFailure naming the first broken record.
 */
export async function verifyAudit(
  environment: Environment,
  options: { receipt?: AuditReceipt; json?: true },
): Promise<void> {
  const verdict = await withKms(environment, ({ store, state }) =>
    verifyChain(state.chainKey, allRecords(store), options.receipt),
  );
  if (options.json) console.log(JSON.stringify(verdict));
  if (!verdict.intact)
    throw new CliFailure(`the audit chain is broken: record ${verdict.fault.seq} is ${verdict.fault.reason}`);
  if (!options.json) console.log(`${verdict.head.seq} records, intact, head ${verdict.head.hash}`);
}

async function* allRecords(store: KmsStore): AsyncGenerator<AuditRecord> {
  for (let after = 0, more = true; more; ) {
    const page = await store.listAudit({ after, limit: PAGE });
    yield* page.items;
    after = page.items.at(-1)?.seq ?? after;
    more = page.more;
  }
}
