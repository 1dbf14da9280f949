import { cachedCheck } from '@bundoc/shared/runtime/cached-check';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { SYSTEM } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import type { ServiceGate } from './services.ts';

export interface Readiness {
  readonly status: 'ready' | 'sealed' | 'unavailable';
  readonly checks: { readonly unsealed: boolean; readonly store: boolean; readonly audit: boolean };
  /** Why the database is not trusted. */
  readonly faults?: readonly string[];
  /** Why the KEK ring opens nothing, and when the service tries again. */
  readonly sealed?: { readonly reason: string; readonly next_try_at: string };
  /** Faults of the file of outside keys; absent without any. */
  readonly outside_keys_faults?: number;
}

/** Why the ring opens nothing, in words for everybody, and when the service tries again. */
export interface SealedState {
  readonly reason: string;
  readonly nextTryMs: number;
}

export interface ReadinessDeps {
  readonly services: ServiceGate;
  readonly isSealed: () => boolean;
  /** Undefined while the ring is open. */
  readonly sealed: () => SealedState | undefined;
  /** Why the database is not trusted. */
  readonly faults: () => readonly string[];
  readonly outsideFaults: () => readonly string[];
  readonly clock: Clock;
}

/** How long an answer is cached, so that requests cannot be used to overload the disk. */
const FRESH_MS = 1_000;

/**
 * Checks whether the service is ready: it is unsealed, the store accepts a durable write, and audit records
 * can be written. Concurrent calls share one check.
 */
export function createReadiness(deps: ReadinessDeps): () => Promise<Readiness> {
  return cachedCheck(deps.clock, FRESH_MS, () => look(deps));
}

async function look(deps: ReadinessDeps): Promise<Readiness> {
  const { services, isSealed, sealed, faults, outsideFaults, clock } = deps;
  const ofFile = outsideFaults().length === 0 ? {} : { outside_keys_faults: outsideFaults().length };
  if (isSealed()) {
    const checks = { unsealed: false, store: false, audit: false };
    const { reason, nextTryMs = 0 } = sealed() ?? {};
    return {
      status: 'sealed',
      checks,
      ...(faults().length === 0 ? {} : { faults: faults() }),
      ...(reason === undefined ? {} : { sealed: { reason, next_try_at: new Date(nextTryMs).toISOString() } }),
      ...ofFile,
    };
  }
  const { store, audit } = services();
  const works = (attempt: Promise<unknown>) =>
    attempt.then(
      () => true,
      () => false,
    );
  const canStore = await works(store.probe());
  // While not ready, there is no traffic and so no record whose success would end the failure. So a record is
  // written here. It also tells readers of the chain that earlier records may be missing and are in the log.
  const canAudit =
    !audit.failing ||
    (await works(audit.append(draftNow({ clock }, SYSTEM, 'audit.resumed', { severity: 'CRITICAL' }))));
  const checks = { unsealed: true, store: canStore, audit: canAudit };
  return { status: canStore && canAudit ? 'ready' : 'unavailable', checks, ...ofFile };
}
