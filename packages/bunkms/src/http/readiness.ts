import { cachedCheck } from '@bundoc/shared/runtime/cached-check';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ServiceGate } from './services.ts';

export interface Readiness {
  readonly status: 'ready' | 'sealed' | 'unavailable';
  readonly checks: { readonly unsealed: boolean; readonly store: boolean; readonly audit: boolean };
}

/** How long an answer is given again, so that asking cannot be used to keep the disk busy. */
const FRESH_MS = 1_000;

/**
 * Finds out whether the service can do its work: unsealed, the store takes a durable write, audit records can
 * be written. Concurrent questions share one look.
 *
 * @param services undefined while sealed.
 */
export function createReadiness(services: ServiceGate | undefined, clock: Clock): () => Promise<Readiness> {
  return cachedCheck(clock, FRESH_MS, () => look(services, clock));
}

async function look(services: ServiceGate | undefined, clock: Clock): Promise<Readiness> {
  if (services === undefined)
    return { status: 'sealed', checks: { unsealed: false, store: false, audit: false } };
  const { store, audit } = services();
  const works = (attempt: Promise<unknown>) =>
    attempt.then(
      () => true,
      () => false,
    );
  const canStore = await works(store.probe());
  // Not ready means no traffic, and so no record whose success would end the failure: it is tried here. The
  // record also tells the reader of the chain that records before it may be missing and are in the log.
  const canAudit =
    !audit.failing ||
    (await works(
      audit.append({
        time: new Date(clock.now()).toISOString(),
        severity: 'CRITICAL',
        action: 'audit.resumed',
        outcome: 'allowed',
        actor: 'system',
      }),
    ));
  const checks = { unsealed: true, store: canStore, audit: canAudit };
  return { status: canStore && canAudit ? 'ready' : 'unavailable', checks };
}
