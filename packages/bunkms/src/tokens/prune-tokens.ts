import type { Clock } from '@bundoc/shared/runtime/clock';
import type { TokenStore } from '../store/tokens.ts';

/** How long a token is kept and listed after its expiry, milliseconds. */
export const KEPT_AFTER_EXPIRY_MS = 30 * 86_400_000;
/** Tokens per transaction. */
const BATCH = 500;

/**
 * Removes tokens that expired long ago, so that renewals do not fill the store. Their records stay in the
 * audit chain. @returns how many.
 */
export async function pruneTokens(store: Pick<TokenStore, 'pruneTokens'>, clock: Clock): Promise<number> {
  const nowMs = clock.now();
  const time = new Date(nowMs).toISOString();
  const before = new Date(nowMs - KEPT_AFTER_EXPIRY_MS).toISOString();
  let pruned = 0;
  for (let count = BATCH; count === BATCH; pruned += count)
    count = await store.pruneTokens(before, BATCH, {
      time,
      severity: 'INFO',
      action: 'token.prune',
      outcome: 'allowed',
      actor: 'system',
      detail: { expired_before: before },
    });
  return pruned;
}
