import { BundocError, hasCode } from '@bundoc/client/error';
import { formatError } from '@bundoc/shared/logs/error-line';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { BackupDamaged } from '../engine/port/errors.ts';

/** Refusals that end by themselves. The service says when to ask again. */
const PASSING: ReadonlySet<string> = new Set([
  'rate_limited',
  'overloaded',
  'kms_unavailable',
  'audit_unavailable',
  'storage_unavailable',
  'project_moving',
  'network_error',
  'deadline_exceeded',
]);
const TRIES_MAX = 8;
/** A limit is waited for longer: someone else may make a backup of the same project. */
const LIMITED_TRIES_MAX = 60;
const BACKOFF = { firstMs: 200, maxMs: 10_000 };
/** Every other project would fail as well, so the run ends. */
const ENDING: ReadonlySet<string> = new Set(['network_error', 'unauthenticated', 'forbidden']);
/** So does the run after these refusals of many projects in a row. */
const OF_ALL: ReadonlySet<string> = new Set([
  'overloaded',
  'kms_unavailable',
  'audit_unavailable',
  'storage_unavailable',
  'deadline_exceeded',
]);
const REFUSALS_MAX = 10;

/** A project that could not be backed up. */
export interface Failed {
  readonly project: string;
  readonly code: string;
  readonly message: string;
}

/** @throws the error itself, if it is one of this machine, such as a full disk. */
export function failureOf(project: string, error: unknown): Failed {
  if (error instanceof BundocError) return { project, code: error.code, message: formatError(error) };
  if (error instanceof BackupDamaged) return { project, code: 'backup_damaged', message: formatError(error) };
  throw error;
}

/**
 * How long to wait before a project is requested again, milliseconds: at least what the service says.
 *
 * @param tries of this project so far, at least 1.
 * @returns undefined when the error stays, or came too often.
 */
export function pauseAfter(error: unknown, tries: number): number | undefined {
  // A damaged answer may come from a service or a proxy that was restarted.
  const isPassing = error instanceof BackupDamaged || isOneOf(error, PASSING);
  const triesMax = hasCode(error, 'rate_limited') ? LIMITED_TRIES_MAX : TRIES_MAX;
  if (!isPassing || tries >= triesMax || isCustomerAway(error)) return undefined;
  const retryAfterMs = error instanceof BundocError ? (error.retryAfterMs ?? 0) : 0;
  return retryAfterMs + backoffMs(BACKOFF, tries);
}

/** Whether the refusal may be one of the whole service, rather than of a project. */
export function mayConcernAll(error: unknown): boolean {
  return isOneOf(error, OF_ALL) && !isCustomerAway(error);
}

/** A customer may be away for days, with many projects: each is tried once more at the end of the run. */
export function isCustomerAway(error: unknown): error is BundocError {
  return hasCode(error, 'kms_unavailable') && error.problem['outside_key'] !== undefined;
}

/** @param inRow how many projects in a row had a refusal that {@link mayConcernAll}. */
export function endsRun(error: unknown, inRow: number): boolean {
  return isOneOf(error, ENDING) || inRow >= REFUSALS_MAX;
}

function isOneOf(error: unknown, codes: ReadonlySet<string>): boolean {
  return error instanceof BundocError && codes.has(error.code);
}
