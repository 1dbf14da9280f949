import { AsyncLocalStorage } from 'node:async_hooks';
import type { Claims } from '../contract/tokens.ts';

/** The subject and project that work is charged to. */
export interface ShareKey {
  /**
   * The root of the token. Renewals of a token, and the tokens that it issues for its projects, have the same
   * root.
   */
  readonly subject: string;
  /** Empty for a request without a project. */
  readonly project: string;
}

/** The id of the first token in the line of a verified one. */
export function rootOf({ root, jti }: Pick<Claims, 'root' | 'jti'>): string {
  return root ?? jti;
}

/** The key of a verified token. */
export function shareKeyOf(claims: Pick<Claims, 'root' | 'jti'>, project = ''): ShareKey {
  return { subject: rootOf(claims), project };
}

/** The key of the service's own work. */
const OWN: ShareKey = { subject: '', project: '' };

/** The places at the gate that a request has. */
export interface Places {
  /** Gives the places back before a wait for something that other requests do not need. */
  leave(): void;
  /** Waits for places again. @throws AppError `rate_limited`, `overloaded`, `request_timeout`. */
  enter(): Promise<void>;
}

/** The key of a request, and the places that it has. */
interface Present extends ShareKey {
  readonly places?: Places | undefined;
}

const current = new AsyncLocalStorage<Present>();

/** Charges all further work of this request to a key. @param places the places that it has at the gate. */
export function enterShare({ subject, project }: ShareKey, places?: Places): void {
  current.enterWith({ subject, project, places });
}

/**
 * Gives the places of the current request back during a wait. If the request gets no places after the wait,
 * the result of the wait is disposed of.
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

/** Runs an action and charges its work to a key. */
export function runInShare<T>(key: ShareKey, action: () => T): T {
  return current.run(key, action);
}

/** The key of the current work, for a project. */
export function shareIn(project: string): ShareKey {
  return { subject: currentShare().subject, project };
}

/** The key of the current work. Work for several requests is charged to the request that began it. */
export function currentShare(): ShareKey {
  return current.getStore() ?? OWN;
}
