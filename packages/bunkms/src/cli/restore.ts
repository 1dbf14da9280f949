import { counted } from '@bundoc/shared/cli/counted';
import { createProgress } from '@bundoc/shared/cli/progress';
import { defined } from '@bundoc/shared/contract/defined';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { openFileSource } from '@bundoc/shared/files/file-source';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { readConfig } from '../config.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { readAuditCopy } from '../recovery/audit-copy.ts';
import { listOf } from '../recovery/errors.ts';
import { EvidenceOfCopy, requireReceipts } from '../recovery/evidence.ts';
import { restore, StoreNotEmpty } from '../recovery/restore.ts';
import type { RestoreReport } from '../recovery/restore-run.ts';
import { type Survey, surveyArchive } from '../recovery/survey.ts';
import { CliFailure, EXIT } from './errors.ts';
import { hasStore, loadVault, openCliStore } from './open-kms.ts';

export interface RestoreCliOptions {
  readonly auditCopy: readonly string[];
  readonly receipt: readonly AuditReceipt[];
  readonly json?: true;
}

/**
 * Restores a backup into an empty data folder. The backup, and the copy of the audit chain from after it, are
 * checked completely before anything is written.
 *
 * @throws CliFailure when a store exists; DamagedFile, MissingKek, EvidenceTooOld.
 */
export async function restoreBackup(
  environment: Environment,
  file: string,
  options: RestoreCliOptions,
): Promise<void> {
  const location = readConfig(environment);
  if (await hasStore(location)) throw thereIsAStore();
  const vault = await loadVault(environment);
  await using source = await openFileSource(file);
  using progress = createProgress('{bar} {percentage}%, {eta_formatted} left');
  // It is read twice: to check and to restore.
  progress.start(2 * source.sizeBytes);
  const survey = await surveyArchive(vault, source, {
    receipts: options.receipt,
    onProgress: (bytes) => progress.update(bytes),
  });
  const evidence = await evidenceAfter(survey, options);
  requireReceipts(survey, evidence, options.receipt);
  const openStore = () => openCliStore(location);
  const deps = { vault, openStore, clock: systemClock, caller: CLI_CALLER };
  try {
    const report = await restore(deps, source, survey, evidence, {
      onProgress: (bytes) => progress.update(source.sizeBytes + bytes),
    });
    print(report, survey, options);
  } catch (error) {
    throw error instanceof StoreNotEmpty ? thereIsAStore() : error;
  }
}

function thereIsAStore(): CliFailure {
  return new CliFailure(
    'a store exists already, and a restore needs an empty one: stop BunKMS, move its store aside, and do not start it before the restore',
    EXIT.conflict,
  );
}

async function evidenceAfter(
  survey: Survey,
  { auditCopy }: RestoreCliOptions,
): Promise<EvidenceOfCopy | undefined> {
  if (auditCopy.length === 0) return undefined;
  const copy = await readAuditCopy(auditCopy, survey.secrets.chainKey, survey.end.audit);
  return new EvidenceOfCopy(copy, survey);
}

function print(report: RestoreReport, { chainFault }: Survey, options: RestoreCliOptions): void {
  if (options.json) {
    console.log(JSON.stringify({ ...report, ...defined({ chain_fault: chainFault }) }));
    return;
  }
  const { audit, as_of: asOf, held, destroyed, incomplete, damaged } = report;
  console.log(
    `restored ${counted(report.keys, 'key')} and ${counted(report.tokens, 'token')} of ${report.archive_created_at}`,
  );
  console.log(`known up to record ${asOf.seq} (${report.knowledge})`);
  if (report.storages > 0)
    console.log(
      `counted as a take-over of ${counted(report.storages, 'storage')}, because later ones may be lost`,
    );
  if (destroyed.length > 0) console.log(`destroyed since the backup: ${listOf(destroyed)}`);
  if (held.length > 0)
    console.log(`disabled, because their later state is unknown; run "bunkms key review": ${listOf(held)}`);
  if (incomplete.length > 0)
    console.log(`without versions newer than the backup; run "bunkms recover": ${listOf(incomplete)}`);
  if (damaged.length > 0) console.log(`damaged in the backup: ${listOf(damaged)}`);
  if (chainFault !== undefined)
    console.log(`the audit chain was broken in the backup: record ${chainFault.seq} is ${chainFault.reason}`);
  if (!report.signing_key_kept) console.log('all tokens are revoked: issue new ones');
  else if (report.tokens_revoked > 0)
    console.log(`revoked since the backup: ${counted(report.tokens_revoked, 'token')}`);
  console.log(`audit: ${audit.seq}:${audit.hash}`);
}
