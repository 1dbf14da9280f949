import { auditSeveritySchema } from '@bundoc/shared/contract/audit';
import { type AuditReceipt, keyNameSchema } from '@bundoc/shared/contract/keys';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { Command } from 'commander';
import { z } from 'zod';
import { acceptLoss, auditHead, type ListOptions, listAudit, verifyAudit, verifyCopy } from './audit.ts';
import type { JsonOption } from './key.ts';
import { collectReceipt, parserOf, wholeNumber } from './option-parsers.ts';

const LIST_MAX = 10_000;
/** Stored times are UTC with milliseconds and are compared as text. */
const time = parserOf(
  z.iso
    .datetime({ offset: true, error: 'must be a time such as 2026-11-25T03:00:00Z' })
    .transform((text) => new Date(text).toISOString()),
);

/** `bunkms audit …`: the audit chain and its copy. */
export function registerAuditCommands(program: Command, environment: Environment): void {
  const audit = program.command('audit').description('the audit chain');
  audit
    .command('head')
    .description('prints seq:hash of the last record: a receipt to keep elsewhere')
    .option('--json', 'print JSON')
    .action((options: JsonOption) => auditHead(environment, options));
  audit
    .command('list')
    .description('prints records, the oldest first')
    .option('--after <seq>', 'only records after this one', wholeNumber(0, Number.MAX_SAFE_INTEGER))
    .option('--limit <count>', 'how many at most', wholeNumber(1, LIST_MAX), 100)
    .option('--severity <severity>', 'INFO or CRITICAL', parserOf(auditSeveritySchema))
    .option('--key <name>', 'only of this key', parserOf(keyNameSchema))
    .option('--actor <subject>', 'only of this caller')
    .option('--from <time>', 'not before this time', time)
    .option('--to <time>', 'before this time', time)
    .option('--json', 'print JSON')
    .action((options: ListOptions) => listAudit(environment, options));
  audit
    .command('verify')
    .description('walks the chain; exit code 1 names the first broken record')
    .option('--receipt <seq:hash>', 'a record that must be in the chain; may be repeated', collectReceipt, [])
    .option('--json', 'print JSON')
    .action((options: { receipt: AuditReceipt[]; json?: true }) => verifyAudit(environment, options));
  audit
    .command('accept-loss')
    .description('accepts that the chain has lost records: earlier receipts prove nothing any more')
    .option('--json', 'print JSON')
    .action((options: JsonOption) => acceptLoss(environment, options));
  audit
    .command('verify-copy')
    .description('compares a copy of the chain (BUNKMS_AUDIT_SHIP) with the store')
    .argument('<files...>', 'its files, in the order in which they were written')
    .option('--json', 'print JSON')
    .action((files: string[], options: JsonOption) => verifyCopy(environment, files, options));
}
