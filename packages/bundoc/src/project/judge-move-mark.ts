import { randomUUID } from 'node:crypto';
import { deriveKey } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { StartedStorage } from '../identity/started-storage.ts';
import type { KeyCache } from './key-cache.ts';
import { MARK_KEY, type MoveMark, openMoveMark } from './move-mark.ts';

/** Longer than an offer and its acceptance may take. After it, whoever opens the project ends a move that was cut short. */
const HAND_OVER_MS = 15_000;

/**
 * Makes sure that a move out of this storage does not take effect any more. Then the source may take writes again.
 *
 * @throws AppError `project_elsewhere` when it has taken effect; `project_moving` while BunKMS does not say.
 */
export type SettleMove = (project: string, move: string) => Promise<void>;

export interface MarkJudge {
  readonly keys: Pick<KeyCache, 'has' | 'evict' | 'get'>;
  readonly settle: SettleMove;
  readonly clock: Clock;
}

/**
 * Decides what becomes of a project beside whose content there is a move mark. BunKMS says who holds the key: a mark can only refuse. It is asked afresh, since
 * a key that was kept may be from before the project moved away.
 *
 * @returns `over` for a mark that is to be removed; `forged` for one that is to be set aside. The project is served then.
 * @throws AppError `project_moving`, `project_elsewhere`, `project_unclaimed`, and those of the key service.
 */
export async function judgeMoveMark(
  project: string,
  text: string,
  hasContent: boolean,
  { keys, settle, clock }: MarkJudge,
): Promise<'over' | 'forged'> {
  if (keys.has(project)) keys.evict(project);
  let mark: MoveMark | undefined;
  try {
    await keys.get(project);
    mark = await openMoveMark(project, text, (version) => keyOf(keys, project, version));
  } catch (error) {
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    if (!hasCode(error, 'KEY_NOT_FOUND')) throw error;
  }
  if (mark === undefined) {
    // It may stand in the place of a genuine one.
    if (hasContent) await settle(project, randomUUID());
    return 'forged';
  }
  const isAway = mark.state === 'moved' || (mark.state === 'leaving' && !hasContent);
  if (isAway) throw new AppError('project_elsewhere', { storage: mark.to });
  if (mark.state === 'whole' && hasContent) return 'over';
  if (mark.state !== 'leaving' || isRecent(mark, clock))
    throw new AppError('project_moving', { retryAfterS: 2 });
  await settle(project, mark.move);
  return 'over';
}

async function keyOf(keys: MarkJudge['keys'], project: string, version: number) {
  try {
    return deriveKey((await keys.get(project, version)).dek, MARK_KEY);
  } catch (error) {
    if (hasCode(error, 'KEY_NOT_FOUND')) return undefined;
    throw error;
  }
}

/** Whether its move may still be under way. */
function isRecent({ since }: MoveMark, clock: Clock): boolean {
  return Math.abs(clock.now() - Date.parse(since)) < HAND_OVER_MS;
}

/**
 * The {@link SettleMove} of a storage: no offer of an earlier generation is accepted, and the present one is withdrawn.
 *
 * @throws AppError as a {@link SettleMove}; `project_unclaimed` when nobody holds the key.
 */
export async function settleMove(
  source: Pick<StartedStorage, 'calls' | 'advance'>,
  project: string,
  move: string,
): Promise<void> {
  try {
    await source.calls.withdrawOffer(dekNameOf(project), move, await source.advance());
  } catch (error) {
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    if (!hasCode(error, 'kms_unavailable', 'storage_unavailable')) throw error;
    throw new AppError('project_moving', { cause: error, retryAfterS: 2 });
  }
}
