import { randomUUID } from 'node:crypto';
import { type KekStatus, kekStatusSchema } from '@bundoc/shared/contract/kek';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect } from 'vitest';
import { AuditLog } from '../../src/audit/log.ts';
import type { KekDeps } from '../../src/kek/kek-rotation.ts';
import { KeyRewrap } from '../../src/kek/rewrap-keys.ts';
import { createMetrics } from '../../src/metrics.ts';
import { NO_OUTSIDE_KEYS } from '../../src/outside/port.ts';
import { SYSTEM } from '../../src/records/caller.ts';
import type { KmsStore } from '../../src/store/port.ts';
import { inlineKekProvider, parseKekRing } from '../../src/vault/kek-provider.ts';
import { Keks } from '../../src/vault/keks.ts';
import { type Sealed, unseal } from '../../src/vault/unseal.ts';
import { Vault } from '../../src/vault/vault.ts';
import type { TestKms } from './kms.ts';
import { openTestStore } from './storage.ts';

export function kekIdOfText(kek: string): string {
  return new Vault(parseKekRing('test', kek)).currentKekId;
}

/** The KEKs as the service reports them. */
export async function statusOf(kms: TestKms): Promise<KekStatus> {
  const answer = await kms.api('/v1/kek', { token: await kms.fullToken() });
  expect(answer.status, answer.text).toBe(200);
  return kekStatusSchema.strict().parse(answer.json());
}

/** Rotates and waits until everything is rewrapped. */
export async function rotateKeks(kms: TestKms, kekId?: string): Promise<KekStatus> {
  const body = kekId === undefined ? {} : { kek_id: kekId };
  const answer = await kms.api('/v1/kek/rotate', { token: await kms.fullToken(), body });
  expect(answer.status, answer.text).toBe(202);
  kekStatusSchema.strict().parse(answer.json());
  return completed(kms);
}

export async function completed(kms: TestKms): Promise<KekStatus> {
  await expect.poll(async () => (await statusOf(kms)).rotation?.completed_at).toBeDefined();
  return statusOf(kms);
}

/** The KEK operations on a store, without a server. */
export interface BareKms extends AsyncDisposable {
  readonly deps: KekDeps;
  readonly rewrap: KeyRewrap;
}

export interface BareOptions {
  readonly dataDir: string;
  /** The text of the ring. */
  readonly ring: string;
  readonly decorate?: (store: KmsStore) => KmsStore;
  readonly batch?: number;
}

/** Opens a store like a separate process. */
export async function openBare({ dataDir, ring, decorate, batch }: BareOptions): Promise<BareKms | Sealed> {
  const opened = await openTestStore(dataDir);
  const store = decorate?.(opened) ?? opened;
  const clock = new FakeClock();
  const logger = createLogger({ service: 'bunkms', level: 'silent' });
  const vault = new Vault(parseKekRing('test', ring));
  try {
    const state = await unseal(vault, store, clock, 'system');
    if (state.kind === 'sealed') {
      await opened.close();
      return state;
    }
    const { chainKey } = state;
    const keks = new Keks({
      vault,
      store,
      chainKey,
      clock,
      logger,
      provider: inlineKekProvider(ring),
      stamp: '',
      state: state.keks,
      caller: SYSTEM,
    });
    const audit = new AuditLog({ store, logger, metrics: createMetrics() });
    const deps: KekDeps = { store, vault, keks, chainKey, audit, clock, logger, outside: NO_OUTSIDE_KEYS };
    const rewrap = new KeyRewrap({
      ...deps,
      caller: SYSTEM,
      holder: randomUUID(),
      ...(batch === undefined ? {} : { batch }),
    });
    return {
      deps,
      rewrap,
      [Symbol.asyncDispose]: async () => {
        await rewrap.stop();
        await audit.drain();
        await opened.close();
      },
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** {@link openBare}, unsealed. */
export async function openUnsealed(options: BareOptions): Promise<BareKms> {
  const kms = await openBare(options);
  if ('kind' in kms) throw new Error(kms.reason);
  return kms;
}
