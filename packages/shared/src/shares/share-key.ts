import { AsyncLocalStorage } from 'node:async_hooks';
import type { Claims } from '../contract/tokens.ts';

/** Identifies the share that work is charged to. */
export interface ShareKey {
  /**
   * The root of the token. Its renewals, and the tokens that it issues for its own projects, have the same
   * share.
   */
  readonly subject: string;
  /** Empty for a request without a project. */
  readonly project: string;
}

/** The id of the first token in the line of a verified one. */
export function rootOf({ root, jti }: Pick<Claims, 'root' | 'jti'>): string {
  return root ?? jti;
}

/** The share of a verified token. */
export function shareKeyOf(claims: Pick<Claims, 'root' | 'jti'>, project = ''): ShareKey {
  return { subject: rootOf(claims), project };
}

/** The key for the process's internal work. */
const OWN: ShareKey = { subject: '', project: '' };

const current = new AsyncLocalStorage<ShareKey>();

/** Charges all further work of this request to a share. */
export function enterShare(key: ShareKey): void {
  current.enterWith(key);
}

/** Runs an action whose work is charged to a share. */
export function runInShare<T>(key: ShareKey, action: () => T): T {
  return current.run(key, action);
}

/** The key of the present work, for a project. */
export function shareIn(project: string): ShareKey {
  return { subject: currentShare().subject, project };
}

/** The key of the present work. Work for several requests belongs to the one that began it. */
export function currentShare(): ShareKey {
  return current.getStore() ?? OWN;
}
