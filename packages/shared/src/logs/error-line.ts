import { AppError } from '../contract/app-error.ts';
import { PROBLEMS } from '../contract/problem.ts';
import { printable } from './printable.ts';

/** What the system's errors of a file mean, behind its path. */
const FILE_FAULTS: Readonly<Record<string, string>> = {
  ENOENT: 'does not exist',
  EEXIST: 'exists already',
  ENOTDIR: 'is below a file',
  EISDIR: 'is a folder',
  EACCES: 'may not be used by this user',
  EROFS: 'is on a read-only file system',
};

/** An error as one line for a person; no stack. */
export function formatError(error: unknown): string {
  // Lines are faults of their own, but for the one that introduces them.
  return reasonsOf(error)
    .join(': ')
    .replace(/(?<!:)\s*\n\s*/g, '; ')
    .replace(/\s+/g, ' ');
}

/** Causes of an error that are named. */
const CAUSES_MAX = 4;

/** An error and its causes, as one line for a person. */
export function formatCauses(error: unknown): string {
  const causes = new Set<string>();
  let one = error;
  for (let depth = 0; one !== undefined && depth < CAUSES_MAX; depth++) {
    causes.add(formatError(one));
    one = one instanceof Error ? one.cause : undefined;
  }
  return printable([...causes].join(': '));
}

function reasonsOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  if (!(error instanceof AppError)) {
    const { code: fault = '', path } = error as NodeJS.ErrnoException;
    const known = Object.hasOwn(FILE_FAULTS, fault) ? FILE_FAULTS[fault] : undefined;
    return [path === undefined || known === undefined ? error.message : `${path} ${known}`];
  }
  // A code alone does not tell the user what to do: its detail and its cause may.
  const { code, detail, cause } = error;
  return [code, detail ?? PROBLEMS[code].title, ...(cause === undefined ? [] : reasonsOf(cause))];
}
