import { AsyncLocalStorage } from 'node:async_hooks';
import type { Claims } from '../contract/tokens.ts';

/** Whose share something is charged to. */
export interface ShareKey {
  /** The root of the token: its renewals, and what it issues for its own projects, have the same share. */
  readonly subject: string;
  /** Empty where a request is of no project. */
  readonly project: string;
}

/** The share of a verified token. */
export function shareKeyOf({ root, jti }: Pick<Claims, 'root' | 'jti'>, project = ''): ShareKey {
  return { subject: root ?? jti, project };
}

/** What the process does for itself. */
const OWN: ShareKey = { subject: '', project: '' };

const current = new AsyncLocalStorage<ShareKey>();

/** Has everything that follows in this request charged to a share. */
export function enterShare(key: ShareKey): void {
  current.enterWith(key);
}

/** Runs an action whose work is charged to a share. */
export function runInShare<T>(key: ShareKey, action: () => T): T {
  return current.run(key, action);
}

/** The share of the work at hand in a project. */
export function shareIn(project: string): ShareKey {
  return { subject: currentShare().subject, project };
}

/** Whose work is at hand. Work that several requests share belongs to the one that began it. */
export function currentShare(): ShareKey {
  return current.getStore() ?? OWN;
}
