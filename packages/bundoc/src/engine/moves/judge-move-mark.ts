import { randomUUID } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { KeyCache } from '../../crypto/key-cache.ts';
import type { LeasedKey } from '../../kms/port.ts';
import type { StartedStorage } from '../identity/started-storage.ts';
import { MARK_KEY, type MoveMark, openMoveMark } from './move-mark.ts';

/**
 * Longer than an offer and its acceptance may take. After it, anyone who opens the project ends an
 * interrupted move.
 */
const HAND_OVER_MS = 15_000;

/** Maximum number of attempts to withdraw an offer while other nodes advance the storage. */
const WITHDRAWALS_MAX = 2;

/**
 * Makes sure that a move out of this storage can no longer take effect, so that the source may accept writes
 * again.
 *
 * @throws AppError `project_elsewhere` when it has taken effect; `project_moving` while BunKMS cannot tell.
 */
export type SettleMove = (project: string, move: string) => Promise<void>;

export interface MarkJudge {
  readonly keys: Pick<KeyCache, 'evict' | 'get'>;
  readonly settle: SettleMove;
  readonly clock: Clock;
}

/**
 * Decides whether a project with a move mark is served. A mark can only refuse; BunKMS says who holds the
 * key. Before the project is served, the key is fetched again: a cached one may be from before the project
 * moved away.
 *
 * @returns `over` for a mark to remove, `forged` for one to set aside. In both cases the project is served.
 * @throws AppError `project_moving`, `project_elsewhere`, `project_unclaimed`, and those of the key service.
 */
export async function judgeMoveMark(
  project: string,
  text: string,
  hasContent: boolean,
  { keys, settle, clock }: MarkJudge,
): Promise<'over' | 'forged'> {
  const keyOf = async (version: number | undefined) => {
    const key = await unlessMissing(keys.get(project, version));
    return key && deriveKey(key.dek, MARK_KEY);
  };
  const mark = await openMoveMark(project, text, keyOf);
  if (mark?.state === 'moved' || (mark?.state === 'leaving' && !hasContent))
    throw new AppError('project_elsewhere', { storage: mark.to });
  const isLeaving = mark?.state === 'leaving' && isRecent(mark, clock);
  if (isLeaving || mark?.state === 'incoming' || (mark?.state === 'whole' && !hasContent))
    throw new AppError('project_moving', { retryAfterS: 2 });
  keys.evict(project);
  const isThere = (await keyOf(undefined)) !== undefined;
  // A forged mark may have replaced a genuine one.
  if (isThere && hasContent && mark?.state !== 'whole') await settle(project, mark?.move ?? randomUUID());
  return mark === undefined ? 'forged' : 'over';
}

/**
 * Whether a project that its mark blocks may be removed. The mark must be authentic and say that the project
 * moved away or is incomplete, although BunKMS releases its key to this storage.
 *
 * @param exportKey fetches the key from BunKMS.
 * @throws AppError as {@link judgeMoveMark}.
 */
export async function isLeftOver(
  project: string,
  text: string,
  hasFile: boolean,
  exportKey: (version: number) => Promise<LeasedKey>,
): Promise<boolean> {
  const mark = await openMoveMark(project, text, async (version) => {
    const key = await unlessMissing(exportKey(version));
    return key && deriveKey(key.dek, MARK_KEY);
  });
  return mark !== undefined && (mark.state === 'moved' || !hasFile);
}

/**
 * Whether a deletion may remove the project: {@link isLeftOver}, or its key is destroyed and some content is
 * left. @throws AppError as that.
 */
export async function mayBeRemoved(
  project: string,
  text: string,
  hasFile: boolean,
  keys: MarkJudge['keys'],
): Promise<boolean> {
  try {
    return await isLeftOver(project, text, hasFile, (version) => {
      keys.evict(project);
      return keys.get(project, version);
    });
  } catch (error) {
    if (hasCode(error, 'project_destroyed')) return true;
    throw error;
  }
}

/** @throws AppError `project_unclaimed` when no storage holds the key, and those of the key service. */
async function unlessMissing(key: Promise<LeasedKey>): Promise<LeasedKey | undefined> {
  try {
    return await key;
  } catch (error) {
    if (hasCode(error, 'key_not_found', 'key_version_destroyed')) return undefined;
    throw hasCode(error, 'key_unheld') ? new AppError('project_unclaimed', { cause: error }) : error;
  }
}

/** Whether its move may still be running. */
function isRecent({ since }: MoveMark, clock: Clock): boolean {
  return Math.abs(clock.now() - Date.parse(since)) < HAND_OVER_MS;
}

/**
 * The {@link SettleMove} of a storage: it invalidates offers of earlier generations and withdraws the current
 * one.
 *
 * @throws AppError as a {@link SettleMove}; `project_unclaimed` when no storage holds the key.
 */
export async function settleMove(
  source: Pick<StartedStorage, 'calls' | 'advance'>,
  project: string,
  move: string,
): Promise<void> {
  try {
    for (let tries = 1; ; tries++) {
      const acting = await source.advance();
      try {
        return await source.calls.withdrawOffer(dekNameOf(project), move, acting);
      } catch (error) {
        // Another node has advanced the storage. If this one is a superseded copy, its next advance is
        // refused.
        if (!hasCode(error, 'storage_superseded')) throw error;
        if (tries === WITHDRAWALS_MAX) throw movingBecauseOf(error);
      }
    }
  } catch (error) {
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    if (!hasCode(error, 'kms_unavailable', 'storage_unavailable')) throw error;
    throw movingBecauseOf(error);
  }
}

function movingBecauseOf(cause: unknown): AppError {
  return new AppError('project_moving', { cause, retryAfterS: 2 });
}
