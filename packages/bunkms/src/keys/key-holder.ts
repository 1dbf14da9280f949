import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { HOLDER_UNKNOWN, type KeyInfo } from '@bundoc/shared/contract/keys';
import type { ClaimKey, MoveOfKey, OfferKey, TakeOverKey } from '@bundoc/shared/contract/storages';
import type { Caller } from '../records/caller.ts';
import { type ChangedKey, changeKey, type Decision } from './change-key.ts';
import { infoOfKey, refuseDestroyed, refuseIntended, requireHolder } from './key-state.ts';
import { leaseLive, liveUntil } from './leases.ts';
import { readStorage } from './storages.ts';
import type { AuthenticKey, KeyDeps } from './stored-key.ts';

/**
 * The holder of a key. It changes by an offer and its acceptance, by the claim of a key without a holder, and
 * by an administrator's take-over. Each is a compare-and-set with its audit record. A call without effect
 * succeeds and leaves no record, so each may be repeated.
 */

/**
 * Makes a storage the holder of a key without a holder.
 *
 * @param isAdministrator may claim a key with an unknown holder.
 * @throws AppError `key_held_elsewhere`; `key_unheld` for a key with an unknown holder, except to an
 *   administrator; `storage_superseded`, `key_destroyed`, and of {@link changeKey}.
 */
export async function claimKey(
  deps: KeyDeps,
  { name, storage, generation }: ClaimKey & { readonly name: string },
  isAdministrator: boolean,
  caller: Caller,
): Promise<KeyInfo> {
  const acting = generation === undefined ? undefined : { storage, generation };
  const request = { name, ...defined({ acting }) };
  const changed = await changeKey(deps, request, 'current', caller, ({ record }) => {
    refuseDestroyed(record);
    if (record.holder === storage) return undefined;
    if (record.holder === HOLDER_UNKNOWN ? !isAdministrator : record.holder !== null)
      requireHolder(record, storage);
    return {
      action: 'key.claim',
      record: { ...record, holder: storage, offer: null },
      detail: heldBy(storage, record.holder),
    };
  });
  return infoOfKey(changed);
}

/**
 * Makes a storage the holder of a key, whatever its holder.
 *
 * A key with a deletion intent stays with its holder until it is destroyed: no other storage may carry out
 * the intent of that holder. An administrator must first restore the key, or destroy it.
 *
 * @throws AppError `lease_live`, with its end, while any other storage may use the key, unless forced;
 *   `key_deletion_intended`; `key_destroyed` unless content remains to be removed, and of {@link changeKey}.
 */
export async function takeOverKey(
  deps: KeyDeps,
  wanted: TakeOverKey & { readonly name: string },
  caller: Caller,
): Promise<KeyInfo> {
  return infoOfKey(await takeOver(deps, wanted, undefined, caller));
}

/**
 * {@link takeOverKey}, only while the storage `of` holds the key. So of two administrators who give it to
 * different storages, the first one succeeds.
 *
 * @returns whether the key has changed.
 */
export async function takeOverKeyOf(
  deps: KeyDeps,
  wanted: TakeOverKey & { readonly name: string },
  of: string,
  caller: Caller,
): Promise<boolean> {
  return (await takeOver(deps, wanted, of, caller)).receipt !== undefined;
}

function takeOver(
  deps: KeyDeps,
  { name, storage, force }: TakeOverKey & { readonly name: string },
  of: string | undefined,
  caller: Caller,
): Promise<ChangedKey> {
  return changeKey(deps, { name }, 'current', caller, async ({ record }) => {
    if (of !== undefined && record.holder !== of) return undefined;
    const hasContent = record.state === 'destroyed' && record.intendedAt !== null && record.holder !== null;
    if (!hasContent) refuseIntended(record);
    if (record.holder === storage && record.offer === null) return undefined;
    return {
      action: 'key.take_over',
      record: { ...record, holder: storage, offer: null },
      detail: { ...heldBy(storage, record.holder), force },
      unreleasedSince: force ? undefined : await requireUnreleased(deps, name, storage),
    };
  });
}

/**
 * @returns the place in the chain up to which no other release of the key is live. @throws AppError
 *   `lease_live`.
 */
async function requireUnreleased({ store, clock }: KeyDeps, name: string, storage: string): Promise<number> {
  const { seq } = await store.auditHead();
  const until = await liveUntil(
    clock,
    (from, page) => store.listExports(name, from, page),
    ({ detail }) => detail?.['storage'] !== storage,
  );
  if (until !== undefined) throw leaseLive(until);
  return seq;
}

/**
 * Offers a key, as its holder, to another storage. Replaces an earlier offer.
 *
 * @throws AppError `invalid_request` for an offer to the holder itself; `key_held_elsewhere`, `key_unheld`,
 *   `key_deletion_intended`, `storage_superseded`, `key_destroyed`, and of {@link changeKey}.
 */
export async function offerKey(
  deps: KeyDeps,
  { name, to, move, ...acting }: OfferKey & { readonly name: string },
  caller: Caller,
): Promise<KeyInfo> {
  if (to === acting.storage)
    throw new AppError('invalid_request', {
      errors: [{ path: 'body.to', message: 'must be another storage' }],
    });
  const changed = await changeKey(deps, { name, acting }, 'current', caller, ({ record }) => {
    refuseDestroyed(record);
    requireHolder(record, acting.storage);
    refuseIntended(record);
    const { generation } = acting;
    const isSame = record.offer?.to === to && record.offer.move === move;
    if (isSame && record.offer?.generation === generation) return undefined;
    return {
      action: 'key.offer',
      record: { ...record, offer: { to, move, generation } },
      detail: { offered_to: to, move, generation },
    };
  });
  return infoOfKey(changed);
}

/**
 * Withdraws the offer of a move, as the key's holder. After the answer, the offer cannot be accepted. Offers
 * of other moves stay.
 *
 * @throws AppError `key_held_elsewhere` when it has been accepted; `key_unheld`, `storage_superseded`,
 *   `key_destroyed`, and of {@link changeKey}.
 */
export async function withdrawKey(
  deps: KeyDeps,
  { name, move, ...acting }: MoveOfKey & { readonly name: string },
  caller: Caller,
): Promise<KeyInfo> {
  const changed = await changeKey(deps, { name, acting }, 'current', caller, ({ record }) => {
    refuseDestroyed(record);
    requireHolder(record, acting.storage);
    if (record.offer?.move !== move) return undefined;
    return { action: 'key.withdraw', record: { ...record, offer: null }, detail: { move } };
  });
  return infoOfKey(changed);
}

/**
 * Makes a storage the holder of a key that it was offered. The offer of exactly that move must exist, and its
 * maker must not have advanced since. So a holder that advances and then withdraws knows that none of its
 * offers can be accepted any more, however late they arrived.
 *
 * @throws AppError `key_not_offered`, `storage_superseded`, `key_destroyed`, and of {@link changeKey}.
 */
export async function acceptKey(
  deps: KeyDeps,
  { name, move, ...acting }: MoveOfKey & { readonly name: string },
  caller: Caller,
): Promise<KeyInfo> {
  const { storage } = acting;
  const changed = await changeKey(deps, { name, acting }, 'current', caller, (key) =>
    acceptance(deps, key, storage, move),
  );
  return infoOfKey(changed);
}

async function acceptance(
  deps: KeyDeps,
  { record }: AuthenticKey,
  storage: string,
  move: string,
): Promise<Decision | undefined> {
  refuseDestroyed(record);
  const { holder, offer } = record;
  if (holder === storage) return undefined;
  if (holder === null || offer?.to !== storage || offer.move !== move) throw new AppError('key_not_offered');
  const state = await readStorage(deps, holder);
  if (state === undefined || state.generation !== offer.generation) throw new AppError('key_not_offered');
  return {
    action: 'key.accept',
    record: { ...record, holder: storage, offer: null },
    detail: { ...heldBy(storage, holder), move },
    storages: [{ id: holder, seq: state.seq }],
  };
}

function heldBy(holder: string, from: string | null): Readonly<Record<string, string>> {
  return { holder, ...(from === null ? {} : { from }) };
}
