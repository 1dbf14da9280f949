import { counted } from '@bundoc/shared/cli/counted';
import { createProgress, type Progress } from '@bundoc/shared/cli/progress';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { Environment } from '@bundoc/shared/runtime/config';
import { KeyVerification } from '../audit/verify-keys.ts';
import { TokenVerification } from '../audit/verify-tokens.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { type ChainHead, GENESIS, verifyChain } from '../records/chain.ts';
import { restoreDraft } from '../records/restore-record.ts';
import { readAuditCopy, startOfCopy } from '../recovery/audit-copy.ts';
import { DamagedFile } from '../recovery/errors.ts';
import type { AuditQuery } from '../store/audit.ts';
import { cursorOf } from '../store/page.ts';
import type { KmsStore } from '../store/port.ts';
import { KEPT_AFTER_EXPIRY_MS } from '../tokens/prune-tokens.ts';
import { CliFailure } from './errors.ts';
import { withKms, withStore } from './open-kms.ts';

const PAGE = 1_000;

/**
 * Prints the place of the last record as a receipt for {@link verifyAudit}. Needs no KEK: the receipt alone
 * proves nothing.
 */
export async function auditHead(environment: Environment, options: { json?: true }): Promise<void> {
  const head = await withStore(environment, (store) => store.auditHead());
  console.log(options.json ? JSON.stringify(head) : `${head.seq}:${head.hash}`);
}

/**
 * Walks the complete audit chain, which must contain the record of each receipt, and compares every key and
 * token with it.
 *
 * @throws CliFailure naming the first broken record, or damaged keys and tokens, or tokens that outlive a
 *   revocation with cascade.
 */
export async function verifyAudit(
  environment: Environment,
  options: { receipt: readonly AuditReceipt[]; json?: true },
): Promise<void> {
  const { verdict, keys, tokens, escaped, foreign } = await withKms(
    environment,
    async ({ store, state: { chainKey } }) => {
      const schema = await store.foreignObjects();
      const ofKeys = new KeyVerification();
      const ofTokens = new TokenVerification();
      const note = (record: AuditRecord) => {
        ofKeys.note(record);
        ofTokens.note(record);
      };
      using progress = createProgress('{bar} {value}/{total} records, {eta_formatted} left');
      progress.start((await store.auditHead()).seq);
      const chain = await verifyChain(chainKey, allRecords(store, note, progress), options.receipt);
      if (!chain.intact) return { verdict: chain, keys: [], tokens: [], escaped: [], foreign: schema };
      const forgottenBefore = new Date(Date.now() - KEPT_AFTER_EXPIRY_MS).toISOString();
      return {
        verdict: chain,
        keys: await ofKeys.damagedKeys(store, chainKey),
        tokens: await ofTokens.damagedTokens(store, chainKey, forgottenBefore),
        escaped: ofTokens.escapedTokens(new Date().toISOString()),
        foreign: schema,
      };
    },
  );
  if (options.json)
    console.log(
      JSON.stringify({
        ...verdict,
        ...(keys.length === 0 ? {} : { damaged_keys: keys }),
        ...(tokens.length === 0 ? {} : { damaged_tokens: tokens }),
        ...(escaped.length === 0 ? {} : { escaped_tokens: escaped }),
        ...(foreign.length === 0 ? {} : { foreign_objects: foreign }),
      }),
    );
  if (!verdict.intact)
    throw new CliFailure(`the audit chain is broken: record ${verdict.fault.seq} is ${verdict.fault.reason}`);
  if (!options.json) console.log(`${counted(verdict.head.seq, 'record')}, intact, head ${verdict.head.hash}`);
  const damaged = [
    ...(keys.length === 0 ? [] : [`keys contradict the audit chain: ${keys.join(', ')}`]),
    ...(tokens.length === 0 ? [] : [`tokens contradict the audit chain: ${tokens.join(', ')}`]),
    ...(escaped.length === 0
      ? []
      : [`tokens outlive a revocation with cascade; repeat the revocation: ${escaped.join(', ')}`]),
    ...(foreign.length === 0 ? [] : [foreignLine(foreign)]),
  ];
  if (damaged.length > 0) throw new CliFailure(damaged.join('; '));
}

/**
 * Verifies a copy of the audit chain, from its first record to its last, and compares it with the chain in
 * the store.
 *
 * @throws CliFailure when the store has another chain; DamagedFile.
 */
export async function verifyCopy(
  environment: Environment,
  paths: readonly string[],
  options: { readonly json?: true },
): Promise<void> {
  const start = await startOfCopy(paths);
  if (start === undefined) throw new DamagedFile('the audit copy contains no record');
  const { head, store: storeHead } = await withKms(environment, async ({ store, state: { chainKey } }) => {
    const copy = await readAuditCopy(paths, chainKey, start);
    for (const place of [start, copy.head]) await requireInChain(store, place);
    return { head: copy.head, store: await store.auditHead() };
  });
  const facts = { first: start.seq + 1, last: head, missing: storeHead.seq - head.seq };
  if (options.json) console.log(JSON.stringify(facts));
  else
    console.log(
      `records ${facts.first} to ${head.seq}, intact; in the store alone: ${counted(facts.missing, 'newer one')}`,
    );
}

/** The differences of the schema, for the operator. */
function foreignLine(foreign: readonly string[]): string {
  return `the schema is not the one that this release makes: ${foreign.join('; ')}`;
}

/**
 * Accepts that the chain lacks records that it had, such as after a failover that lost commits. A CRITICAL
 * record says so, and receipts from before it prove nothing any more.
 *
 * @throws CliFailure while the schema has foreign objects: they could drop that record, too.
 */
export async function acceptLoss(environment: Environment, options: { json?: true }): Promise<void> {
  const receipt = await withKms(environment, async ({ database, trust }) => {
    const foreign = await database.foreignObjects();
    if (foreign.length > 0) throw new CliFailure(foreignLine(foreign));
    const draft = restoreDraft(CLI_CALLER, Date.now(), [trust.epoch], { accepted: 'loss' });
    const [appended] = await database.appendAudit([draft]);
    if (appended === undefined || typeof appended === 'string')
      throw new CliFailure('the record was rejected');
    await trust.check();
    if (trust.epoch !== draft.detail?.['epoch']) throw new CliFailure('the record was not stored');
    if (trust.isSealed) throw new CliFailure(`the database is still not trusted: ${trust.faults.join('; ')}`);
    return appended;
  });
  if (options.json) console.log(JSON.stringify(receipt));
  else console.log(`accepted: record ${receipt.seq} ends all earlier receipts`);
}

/** @throws CliFailure unless the store's chain contains exactly that record. */
async function requireInChain(store: KmsStore, { seq, hash }: ChainHead): Promise<void> {
  if (seq === GENESIS.seq && hash === GENESIS.hash) return;
  const [record] = (await store.listAudit({ after: seq - 1, limit: 1 })).items;
  if (record?.seq !== seq || record.hash !== hash)
    throw new CliFailure(
      `record ${seq} of the copy is not in the store: one of them belongs to another history`,
    );
}

export interface ListOptions {
  readonly after?: number;
  readonly limit: number;
  readonly severity?: AuditRecord['severity'];
  readonly key?: string;
  readonly actor?: string;
  readonly from?: string;
  readonly to?: string;
  readonly json?: true;
}

/** Prints records of the audit chain, the oldest first. Needs no KEK, because it does not verify them. */
export async function listAudit(environment: Environment, options: ListOptions): Promise<void> {
  const { json, ...query } = options;
  const { items, next } = await withStore(environment, (store) => collect(store, query));
  if (json) {
    console.log(JSON.stringify({ records: items, ...defined({ next_after: next }) }));
    return;
  }
  for (const record of items) console.log(lineOf(record));
  if (next !== undefined) console.error(`bunkms: there are more: --after ${next}`);
}

/** The requested number of records, from as many pages of the store as needed. */
async function collect(
  store: KmsStore,
  query: AuditQuery,
): Promise<{ readonly items: AuditRecord[]; readonly next: number | undefined }> {
  const items: AuditRecord[] = [];
  for (let { after } = query; ; ) {
    const page = await store.listAudit({ ...query, after, limit: query.limit - items.length });
    items.push(...page.items);
    after = cursorOf(page, ({ seq }) => seq);
    if (after === undefined || items.length === query.limit) return { items, next: after };
  }
}

function lineOf({
  seq,
  time,
  severity,
  action,
  outcome,
  actor,
  key,
  version,
  code,
  detail,
}: AuditRecord): string {
  const what = [key, version, code].filter((word) => word !== undefined);
  const facts = detail === undefined ? [] : [JSON.stringify(detail)];
  return [seq, time, severity, action, outcome, actor ?? '-', ...what, ...facts].join('  ');
}

async function* allRecords(
  store: KmsStore,
  note: (record: AuditRecord) => void,
  progress: Progress,
): AsyncGenerator<AuditRecord> {
  for (let after: number | undefined, more = true; more; ) {
    const page = await store.listAudit({ after, limit: PAGE });
    for (const record of page.items) {
      note(record);
      yield record;
    }
    after = page.items.at(-1)?.seq ?? after;
    progress.update(after ?? 0);
    more = page.more;
  }
}
