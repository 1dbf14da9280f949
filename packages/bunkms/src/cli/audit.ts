import { type AddCommands, command, each, Option, parserOf, wholeNumber } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { createProgress, type Progress } from '@bundoc/shared/cli/progress';
import { type AuditRecord, auditSeveritySchema } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import { type AuditReceipt, keyNameSchema } from '@bundoc/shared/contract/keys';
import type { Environment } from '@bundoc/shared/process/config';
import { z } from 'zod';
import { KeyVerification } from '../audit/verify-keys.ts';
import { TokenVerification } from '../audit/verify-tokens.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { type ChainFault, type ChainHead, GENESIS, verifyChain } from '../records/chain.ts';
import { restoreDraft } from '../records/restore-record.ts';
import { readAuditCopy, startOfCopy } from '../recovery/audit-copy.ts';
import { DamagedFile } from '../recovery/errors.ts';
import type { AuditQuery } from '../store/audit.ts';
import { cursorOf } from '../store/page.ts';
import type { KmsStore } from '../store/port.ts';
import { KEPT_AFTER_EXPIRY_MS } from '../tokens/prune-tokens.ts';
import { CliFailure, UsageError } from './errors.ts';
import { receipt, withKms, withStore } from './open-kms.ts';

const PAGE = 1_000;

const LIST_MAX = 10_000;
/** Stored times are UTC with milliseconds and are compared as text. */
const time = parserOf(
  z.iso
    .datetime({ offset: true, error: 'must be a time such as 2026-11-25T03:00:00Z' })
    .transform((text) => new Date(text).toISOString()),
);

/** `bunkms audit …`: the audit chain and its copy. `head` and `list` verify nothing, and need no KEK. */
export const addAuditCommands: AddCommands = (program, environment) => {
  const group = program.command('audit').description('the audit chain');
  command(group, 'head', 'prints seq:hash of the last record: a receipt to keep elsewhere').action(
    async (options) => {
      const head = await withStore(environment, (store) => store.auditHead());
      print(options, head, () => [`${head.seq}:${head.hash}`]);
    },
  );
  command(group, 'list', 'prints records, the oldest first')
    .option('--after <seq>', 'only records after this one', wholeNumber(0, Number.MAX_SAFE_INTEGER))
    .option('--limit <count>', `how many records at most, up to ${LIST_MAX}`, wholeNumber(1, LIST_MAX), 100)
    .addOption(
      new Option('--severity <severity>', 'only records of this severity').choices(
        auditSeveritySchema.options,
      ),
    )
    .option('--key <name>', 'only of this key', parserOf(keyNameSchema))
    .option('--actor <subject>', 'only of this caller')
    .option('--from <time>', 'not before this time', time)
    .option('--to <time>', 'before this time', time)
    .action(async (options) => {
      const { json, ...query } = options;
      const { items, next } = await withStore(environment, (store) => recordsOf(store, query));
      print(options, { records: items, ...defined({ next_after: next }) }, () => items.map(recordLine));
      if (next !== undefined && !json) console.error(`bunkms: there are more: --after ${next}`);
    });
  command(group, 'verify', 'walks the chain; exit code 1 names the first broken record')
    .option('--receipt <seq:hash>', 'a record that must be in the chain; may be repeated', each(receipt), [])
    .action(({ receipt: receipts, ...options }) => verifyAudit(environment, receipts, options));
  command(
    group,
    'accept-loss',
    'accepts that the chain has lost records: earlier receipts prove nothing any more',
  )
    .option('--confirm', 'required, because nothing undoes it')
    .action(({ confirm, ...options }) => {
      if (!confirm)
        throw new UsageError(
          'nothing was changed: this ends all earlier receipts, and nothing undoes it; add --confirm if records are lost for good',
        );
      return acceptLoss(environment, options);
    });
  command(group, 'verify-copy', 'compares a copy of the chain (BUNKMS_AUDIT_SHIP) with the store')
    .argument('<files...>', 'its files, in the order in which they were written')
    .action((files, options) => verifyCopy(environment, files, options));
};

/**
 * Walks the complete audit chain, which must contain the record of each receipt, and compares every key and
 * token with it.
 *
 * @throws CliFailure naming the first broken record, or damaged keys and tokens, or tokens that outlive a
 *   revocation with cascade.
 */
async function verifyAudit(
  environment: Environment,
  receipts: readonly AuditReceipt[],
  options: JsonOption,
): Promise<void> {
  let lastSeq = 0;
  const { verdict, keys, tokens, escaped, foreign } = await withKms(
    environment,
    async ({ store, state: { chainKey } }) => {
      const schema = await store.foreignObjects();
      const ofKeys = new KeyVerification();
      const ofTokens = new TokenVerification();
      const note = (record: AuditRecord) => {
        ofKeys.note(record);
        ofTokens.note(record);
        lastSeq = record.seq;
      };
      using progress = createProgress('{bar} {value}/{total} records, {eta_formatted} left');
      progress.start((await store.auditHead()).seq);
      const chain = await verifyChain(chainKey, allRecords(store, note, progress), receipts);
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
  const lists = {
    damaged_keys: keys,
    damaged_tokens: tokens,
    escaped_tokens: escaped,
    foreign_objects: foreign,
  };
  const found = Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0));
  print(options, { ...verdict, ...found }, () =>
    verdict.intact
      ? [
          ...verdict.receipts.map(
            (record) => `the chain has the record of the receipt: ${recordLine(record)}`,
          ),
          `${counted(verdict.head.seq, 'record')}, intact`,
          `audit: ${verdict.head.seq}:${verdict.head.hash}`,
        ]
      : [],
  );
  if (!verdict.intact) {
    const { seq, reason } = verdict.fault;
    // Only a receipt names a record behind the last one.
    if (reason === 'missing' && lastSeq === seq - 1 && receipts.length > 0)
      throw new CliFailure(beyondEnd(lastSeq, receipts));
    const isByReceipt = receipts.length > 0 && (reason === NOT_OF_RECEIPT || lastSeq === seq - 1);
    throw new CliFailure(
      `the audit chain is broken${isByReceipt ? OR_FOREIGN : ''}: record ${seq} is ${reason}`,
    );
  }
  const faults = Object.entries(found).map(([list, names]) =>
    list === 'foreign_objects' ? foreignLine(names) : `${FAULTS[list]}: ${names.join(', ')}`,
  );
  if (faults.length > 0) throw new CliFailure(faults.join('; '));
}

function beyondEnd(lastSeq: number, receipts: readonly AuditReceipt[]): string {
  const seq = Math.max(...receipts.map((one) => one.seq));
  return `the chain ends with record ${lastSeq}, before record ${seq} of the receipt: the store has lost records, or is older than the receipt, or the receipt is of another installation`;
}

const NOT_OF_RECEIPT: ChainFault['reason'] = 'not the record of the receipt';
/** The records in the store follow each other: only a receipt contradicts them. */
const OR_FOREIGN = ', or the receipt is of another installation or was changed';
const FAULTS: Readonly<Record<string, string>> = {
  damaged_keys: 'keys contradict the audit chain',
  damaged_tokens: 'tokens contradict the audit chain',
  escaped_tokens: 'tokens outlive a revocation with cascade; repeat the revocation',
};

/**
 * Verifies a copy of the audit chain, from its first record to its last, and compares it with the chain in
 * the store.
 *
 * @throws CliFailure when the store has another chain; DamagedFile.
 */
async function verifyCopy(
  environment: Environment,
  paths: readonly string[],
  options: JsonOption,
): Promise<void> {
  const start = await startOfCopy(paths);
  if (start === undefined) throw new DamagedFile('the audit copy contains no record');
  const { head, store: storeHead } = await withKms(environment, async ({ store, state: { chainKey } }) => {
    const copy = await readAuditCopy(paths, chainKey, start);
    for (const place of [start, copy.head]) await requireInChain(store, place);
    return { head: copy.head, store: await store.auditHead() };
  });
  const facts = { first: start.seq + 1, last: head, missing: storeHead.seq - head.seq };
  const newer = counted(facts.missing, 'newer one');
  print(options, facts, () => [
    `records ${facts.first} to ${head.seq}, intact; in the store alone: ${newer}`,
  ]);
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
async function acceptLoss(environment: Environment, options: JsonOption): Promise<void> {
  const accepted = await withKms(environment, async ({ database, trust }) => {
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
  print(options, accepted, () => [`accepted: record ${accepted.seq} ends all earlier receipts`]);
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

/** The requested number of records, from as many pages of the store as needed. */
async function recordsOf(
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

function recordLine({
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
  const facts = detail && JSON.stringify(detail);
  return rowLine(seq, time, severity, action, outcome, actor ?? '-', key, version, code, facts);
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
