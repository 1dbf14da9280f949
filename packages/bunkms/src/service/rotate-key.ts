import { createSecretKey, randomBytes } from 'node:crypto';
import { KEY_BYTES, keyCheckValue } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import { KEY_VERSIONS_MAX, type KeyInfo } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { Caller } from '../audit/caller.ts';
import type { AuditDraft } from '../audit/chain.ts';
import type { KmsStore } from '../store/port.ts';
import type { Vault } from '../vault/vault.ts';
import { openDek } from './open-dek.ts';

export interface RotatePorts {
  readonly store: KmsStore;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface Rotation {
  readonly name: string;
  /** Rotates only if this version is the current one. */
  readonly expectedVersion?: number | undefined;
}

/**
 * Mints the next version of a key and makes it the current one, together with its audit record. Older versions stay as they are.
 *
 * Whoever rotates at the same time, in this process or another, makes one version: the store takes the first, and the others
 * answer with that one. It came to be after each of them had asked, so it is as new as what they asked for.
 *
 * A key whose current version does not open is not rotated: what damaged the record may have damaged the identity that the new
 * version would be bound to.
 *
 * @returns the key in its current version, durable: the new one, or with another `expectedVersion` the present one.
 * @throws AppError `KEY_NOT_FOUND`, `key_versions_exhausted`, `key_damaged`. After `storage_unavailable` it may have happened:
 * with `expectedVersion` asking again does not rotate again.
 */
export async function rotateKey(ports: RotatePorts, rotation: Rotation, caller: Caller): Promise<KeyInfo> {
  const { store, vault, clock } = ports;
  const { name, expectedVersion } = rotation;
  const present = await store.findKey(name);
  if (present === undefined) throw new AppError('KEY_NOT_FOUND');
  if (expectedVersion !== undefined && expectedVersion !== present.info.version)
    return answerUnchanged(ports, present.info, rotation, caller);
  if (present.info.version >= KEY_VERSIONS_MAX)
    throw new AppError('key_versions_exhausted', {
      detail: `a key has at most ${KEY_VERSIONS_MAX} versions`,
    });
  openDek(ports, present).fill(0);

  const dek = randomBytes(KEY_BYTES);
  try {
    const version = present.info.version + 1;
    const info: KeyInfo = { ...present.info, version, kcv: keyCheckValue(createSecretKey(dek)) };
    const wrapped = vault.wrapDek(dek, { keyId: info.id, name, version });
    const time = new Date(clock.now()).toISOString();
    const isAdded = await store.addKeyVersion(
      { keyId: info.id, version, kcv: info.kcv, wrapped, createdAt: time },
      draft('key.rotate', time, info, caller, { kcv: info.kcv }),
    );
    if (isAdded) return info;
  } finally {
    dek.fill(0);
  }
  const overtaken = await store.findKey(name);
  if (overtaken === undefined) throw new AppError('KEY_NOT_FOUND');
  return answerUnchanged(ports, overtaken.info, rotation, caller);
}

/** Nothing was rotated by this call; that, too, is on record. */
async function answerUnchanged(
  { store, clock }: RotatePorts,
  info: KeyInfo,
  { expectedVersion }: Rotation,
  caller: Caller,
): Promise<KeyInfo> {
  const time = new Date(clock.now()).toISOString();
  const expected = expectedVersion === undefined ? {} : { expected_version: expectedVersion };
  await store.appendAudit([draft('key.rotate_unneeded', time, info, caller, expected)]);
  return info;
}

function draft(
  action: string,
  time: string,
  info: KeyInfo,
  caller: Caller,
  detail: NonNullable<AuditDraft['detail']>,
): AuditDraft {
  return {
    ...caller,
    time,
    severity: 'INFO',
    action,
    outcome: 'allowed',
    key: info.name,
    version: info.version,
    detail: { key_id: info.id, ...detail },
  };
}
