import { hash } from 'node:crypto';

/**
 * Names the state of a project after its last change, from what its storage shows without a key. Only
 * equality has a meaning. A hash, because the place of a commit in a shared log would show how much others
 * write.
 */
export function lastChangeOf(...parts: readonly (string | number)[]): string {
  return hash('sha256', parts.join(' '), 'hex').slice(0, 32);
}
