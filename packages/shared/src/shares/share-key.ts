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

/** The places at the gate that a request has. */
export interface Places {
  /** Gives them back while the request waits for what other requests can do without. */
  leave(): void;
  /** Waits for them after that. @throws AppError `rate_limited`, `overloaded`, `request_timeout`. */
  enter(): Promise<void>;
}

/** The key of a request, and the places that it has. */
interface Present extends ShareKey {
  readonly places?: Places | undefined;
}

const current = new AsyncLocalStorage<Present>();

/** Charges all further work of this request to a share. @param places at the gate that it has. */
export function enterShare({ subject, project }: ShareKey, places?: Places): void {
  current.enterWith({ subject, project, places });
}

/**
 * Gives the places of the present request back during a wait. What the wait has obtained is disposed of if
 * there are no places then.
 */
export async function away<T extends Disposable | undefined>(wait: () => Promise<T>): Promise<T> {
  const places = current.getStore()?.places;
  if (places === undefined) return wait();
  places.leave();
  const result = await wait();
  try {
    await places.enter();
  } catch (error) {
    result?.[Symbol.dispose]();
    throw error;
  }
  return result;
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
