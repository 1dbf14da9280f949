import { createSecretKey } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import { keyCheckValue, OpenError } from '@bundoc/shared/crypto/aead';
import type { Logger } from '@bundoc/shared/logs/logger';
import {
  type CallFacts,
  type OutsideFault,
  type OutsideKey,
  OutsideKeyError,
  type OutsideKeyPort,
} from '../outside/port.ts';
import { isSameOutside } from '../records/key-outside.ts';
import type { KeyOutside, KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import { formatOf, kekIdOf, OUTSIDE_FORMAT } from '../records/wrapped-key.ts';
import { decodeOutsideDek, type OutsideDek, openUnderShare } from '../vault/outside-dek.ts';
import type { Vault } from '../vault/vault.ts';

interface OpenDeps {
  readonly vault: Vault;
  readonly logger: Logger;
}

type Outside = Pick<OutsideKeyPort, 'find'>;

/** What our own layer of a wrapped DEK has: the raw DEK, or one that an outside key protects as well. */
type OwnLayer = { readonly dek: Buffer } | { readonly outside: OutsideDek };

/**
 * Opens our own layer of a version. That calls no provider.
 *
 * @returns the check value of a raw DEK was compared; the caller wipes it.
 * @throws OpenError when it does not unwrap, for whatever reason.
 */
function openOwnLayer(vault: Vault, name: string, version: KeyVersionRecord): OwnLayer {
  const { keyId, version: number, kcv, wrapped } = version;
  const bytes = vault.unwrapDek(wrapped, { keyId, name, version: number });
  if (formatOf(wrapped) === OUTSIDE_FORMAT) {
    const outside = decodeOutsideDek(bytes);
    if (outside === undefined) throw new OpenError();
    return { outside };
  }
  return { dek: checked(bytes, kcv) };
}

/**
 * Whether a version opens as far as BunKMS can know by itself. For a version under an outside key that is our
 * own layer: rotations of the KEK, backups and recoveries call no provider.
 */
export function opens(vault: Vault, name: string, version: KeyVersionRecord): boolean {
  try {
    const own = openOwnLayer(vault, name, version);
    if ('dek' in own) own.dek.fill(0);
    return true;
  } catch (error) {
    if (error instanceof OpenError) return false;
    throw error;
  }
}

/** Requires {@link opens}. @throws AppError `key_damaged`. */
export function requireOpens(deps: OpenDeps, name: string, version: KeyVersionRecord): void {
  const own = requireOwnLayer(deps, name, version);
  if ('dek' in own) own.dek.fill(0);
}

function requireOwnLayer({ vault, logger }: OpenDeps, name: string, version: KeyVersionRecord): OwnLayer {
  try {
    return openOwnLayer(vault, name, version);
  } catch (error) {
    if (!(error instanceof OpenError)) throw error;
    const lacksKek = !vault.holds(kekIdOf(version.wrapped) ?? '');
    throw damaged(logger, name, version, lacksKek ? 'the ring lacks its KEK' : 'it does not unwrap');
  }
}

/** How an outside key is asked for a version. */
export interface OutsideAsking extends CallFacts {
  /** Called before it is asked. What it throws ends the opening. */
  readonly before?: () => void;
  /** Its name, once it was found. */
  key?: string;
}

/**
 * Opens a version for use. The outside key that protects it is asked, once.
 *
 * @param asking gets the facts of that call.
 * @returns the raw DEK, which the caller wipes.
 * @throws AppError `key_damaged`; `outside_key_denied`, `outside_key_unavailable`, `outside_key_changed`.
 */
export async function openDek(
  deps: OpenDeps & { readonly outside: Outside },
  { name, outside: attached }: Pick<KeyRecord, 'name' | 'outside'>,
  version: KeyVersionRecord,
  asking: OutsideAsking = {},
): Promise<Buffer> {
  const own = requireOwnLayer(deps, name, version);
  if ('dek' in own) return own.dek;
  const { outside } = own;
  asking.before?.();
  const key = await findAttached(deps.outside, outside.outside, attached);
  asking.key = key.name;
  const { keyId, version: number, kcv } = version;
  try {
    const share = await key.unwrap(outside.blob, asking);
    return checked(openUnderShare(share, outside, { keyId, name, version: number }), kcv);
  } catch (error) {
    if (error instanceof OpenError || (error instanceof OutsideKeyError && error.fault === 'damaged'))
      throw damaged(deps.logger, name, version, `the outside key ${key.name} does not open it`);
    throw outsideRefusal(key.name, error);
  }
}

/**
 * The outside key of an entry, if it is still the one that the key was attached to. @throws AppError
 * `outside_key_unavailable`, `outside_key_changed`.
 */
export async function findAttached(
  outside: Outside,
  name: string,
  attached: KeyOutside | null,
): Promise<OutsideKey> {
  const key = await outside.find(name).catch((error: unknown) => {
    throw outsideRefusal(name, error);
  });
  if (key === undefined)
    throw new AppError('outside_key_unavailable', {
      detail: `no entry here has the name ${name}`,
      outsideKey: name,
    });
  // Versions of an earlier attachment tell by themselves whether they open.
  if (attached?.key === name && !isSameOutside(attached, key))
    throw new AppError('outside_key_changed', {
      detail: `the entry ${name} names another key than before`,
      outsideKey: name,
    });
  return key;
}

const REFUSALS: Readonly<Record<OutsideFault, ProblemCode>> = {
  denied: 'outside_key_denied',
  unavailable: 'outside_key_unavailable',
  damaged: 'outside_key_unavailable',
};

/** The refusal for a call of an outside key that failed. Its detail names the key, not why. */
export function outsideRefusal(name: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  const failure = error instanceof OutsideKeyError ? error : undefined;
  const code = failure === undefined ? 'outside_key_unavailable' : REFUSALS[failure.fault];
  return new AppError(code, {
    detail: `the outside key is ${name}`,
    outsideKey: name,
    cause: error,
    ...defined({ retryAfterS: code === 'outside_key_unavailable' ? failure?.retryAfterS : undefined }),
  });
}

/** The outside key that protects a version; undefined for none. @throws AppError `key_damaged`. */
export function outsideOf(deps: OpenDeps, name: string, version: KeyVersionRecord): string | undefined {
  const own = requireOwnLayer(deps, name, version);
  if ('outside' in own) return own.outside.outside;
  own.dek.fill(0);
  return undefined;
}

/** {@link outsideOf}, and undefined for a version that does not open. */
export function findOutsideOf(vault: Vault, name: string, version: KeyVersionRecord): string | undefined {
  try {
    const own = openOwnLayer(vault, name, version);
    if ('outside' in own) return own.outside.outside;
    own.dek.fill(0);
  } catch (error) {
    if (!(error instanceof OpenError)) throw error;
  }
  return undefined;
}

/** @throws OpenError, and wipes the DEK, when its check value is another. */
function checked(dek: Buffer, kcv: string): Buffer {
  if (keyCheckValue(createSecretKey(dek)) === kcv) return dek;
  dek.fill(0);
  throw new OpenError();
}

function damaged(
  logger: Logger,
  keyName: string,
  { keyId, version }: KeyVersionRecord,
  reason: string,
): AppError {
  logger.error({ keyName, keyId, version, reason }, 'a stored key is damaged');
  return new AppError('key_damaged');
}
