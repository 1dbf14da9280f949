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
