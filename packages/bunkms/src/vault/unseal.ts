import assert from 'node:assert/strict';
import { type KeyObject, randomBytes } from 'node:crypto';
import { KEY_BYTES, OpenError, takeKey } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Installation, KnownKek, PublicJwk } from '../records/installation.ts';
import { foldKekRecords, type KekState } from '../records/kek-state.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { InstallationStore } from '../store/installation.ts';
import type { KekStore } from '../store/kek.ts';
import { publicJwkOf, signingKeyOf } from './signing-key.ts';
import type { SecretName, Vault } from './vault.ts';

/** The opened secrets of an installation. */
export interface OpenedInstallation {
  readonly kind: 'unsealed';
  /** Key of the audit chain. {@link unseal} gives it to the store. */
  readonly chainKey: KeyObject;
  readonly signingKey: KeyObject;
  readonly publicKey: PublicJwk;
}

/** An unsealed installation. */
export interface Unsealed extends OpenedInstallation {
  /** The state of the KEKs; the vault wraps with the current one. */
  readonly keks: KekState;
}

/**
 * A sealed installation: its KEK does not fit the store. Nothing can be wrapped, unwrapped, signed or
 * recorded in the chain.
 */
export interface Sealed {
  readonly kind: 'sealed';
  /** For the operator's log. */
  readonly reason: string;
  /** From the store, not authenticated: only for `bunkms status`. */
  readonly publicKey: PublicJwk;
}

/**
 * Unseals the installation: creates it at the first start, otherwise opens its secrets. Then it gives the
 * store the key of the audit chain, and the vault its current KEK.
 *
 * Several processes may run it at once: the store lets one create the installation, and the others use it.
 *
 * @throws AppError of the store.
 */
export async function unseal(
  vault: Vault,
  store: InstallationStore & KekStore,
  clock: Clock,
  actor: 'system' | 'cli',
): Promise<Unsealed | Sealed> {
  const installation = (await store.readInstallation()) ?? (await initialise(vault, store, clock, actor));
  const opened = openInstallation(vault, installation);
  if (opened.kind === 'sealed') return opened;
  await store.unlock(opened.chainKey);
  const sealed = (reason: string): Sealed => ({ kind: 'sealed', reason, publicKey: installation.signingKey });
  const keks = foldKekRecords(opened.chainKey, await store.kekRecords());
  if (!('keks' in keks)) return sealed(`the audit record ${keks.seq} of the KEKs was changed`);
  if (!vault.holds(keks.current)) return sealed(`the ring lacks the KEK ${keks.current}, the current one`);
  vault.makeCurrent(keks.current);
  return { ...opened, keks };
}

/** @returns the stored installation, whichever process created it. */
async function initialise(
  vault: Vault,
  store: InstallationStore & KekStore,
  clock: Clock,
  actor: string,
): Promise<Installation> {
  const chainKey = randomBytes(KEY_BYTES);
  const seed = randomBytes(KEY_BYTES);
  const time = new Date(clock.now()).toISOString();
  let candidate: Installation;
  let chainKeyObject: KeyObject;
  try {
    candidate = {
      createdAt: time,
      chainKeyWrapped: vault.wrapSecret(chainKey, 'audit-chain-key'),
      signingSeedWrapped: vault.wrapSecret(seed, 'token-signing-seed'),
      signingKey: publicJwkOf(signingKeyOf(seed)),
      keks: [kekOf(vault, vault.currentKekId)],
    };
    chainKeyObject = takeKey(chainKey);
  } finally {
    chainKey.fill(0);
    seed.fill(0);
  }
  await store.initialise(candidate, chainKeyObject, {
    time,
    severity: 'INFO',
    action: 'vault.initialised',
    outcome: 'allowed',
    actor,
    detail: { kek_id: vault.currentKekId, kid: candidate.signingKey.kid },
  });
  const installation = await store.readInstallation();
  assert(installation !== undefined, 'an installation exists');
  return installation;
}

/** Opens the secrets of an installation. */
export function openInstallation(vault: Vault, installation: Installation): OpenedInstallation | Sealed {
  const sealed = (reason: string): Sealed => ({
    kind: 'sealed',
    reason,
    publicKey: installation.signingKey,
  });
  const chainKeyBytes = openSecret(vault, installation, 'audit-chain-key', installation.chainKeyWrapped);
  if (typeof chainKeyBytes === 'string') return sealed(chainKeyBytes);
  const chainKey = takeKey(chainKeyBytes);
  const seed = openSecret(vault, installation, 'token-signing-seed', installation.signingSeedWrapped);
  if (typeof seed === 'string') return sealed(seed);
  let signingKey: KeyObject;
  try {
    signingKey = signingKeyOf(seed);
  } finally {
    seed.fill(0);
  }

  // The public key is derived from the seed, because the copy in the store is not authenticated.
  return { kind: 'unsealed', chainKey, signingKey, publicKey: publicJwkOf(signingKey) };
}

/** @returns the secret, or why the vault cannot open it. */
function openSecret(
  vault: Vault,
  installation: Installation,
  name: SecretName,
  wrapped: Uint8Array,
): Buffer | string {
  const kekId = kekIdOf(wrapped);
  const known = installation.keks.find(({ id }) => id === kekId);
  if (known === undefined) return `the ${name} is damaged: it names a KEK that the store does not know`;
  const checkValue = vault.checkValueOf(known.id);
  if (checkValue === undefined)
    return `the ring lacks the KEK ${known.id}, which the ${name} is wrapped with`;
  if (checkValue !== known.checkValue) return `the check value of the KEK ${known.id} does not fit`;
  try {
    return vault.unwrapSecret(wrapped, name);
  } catch (error) {
    if (error instanceof OpenError) return `the ${name} is damaged: it does not unwrap`;
    throw error;
  }
}

/** The stored facts of a KEK of the ring. */
function kekOf(vault: Vault, id: string): KnownKek {
  const checkValue = vault.checkValueOf(id);
  assert(checkValue !== undefined, 'the KEK is in the ring');
  return { id, checkValue };
}
