import { type KeyObject, randomUUID } from 'node:crypto';
import { aadOf, deriveKey, OpenError, open, seal } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { z } from 'zod';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import type { KeyCache } from './key-cache.ts';

const moveMarkSchema = z.strictObject({
  /** Where the project comes to: `incoming`, and `whole` once nothing is missing. Where it comes from: `leaving`, and `moved` once it changed hands. */
  state: z.enum(['incoming', 'whole', 'leaving', 'moved']),
  move: z.uuid(),
  from: storageIdSchema,
  to: storageIdSchema,
  since: z.iso.datetime(),
});
/** What a storage says of a project that it gives away or receives (docs/formats/move-mark.md). */
export type MoveMark = z.infer<typeof moveMarkSchema>;

/** What the text of a mark begins with, and no other mark does. */
export const MOVE_MARK_BEGINS = 'bundoc-move-mark-1.';
/** Bytes of the longest text. */
export const MOVE_MARK_BYTES_MAX = 1_024;
/** What the key of marks is derived for. */
export const MARK_KEY = 'bundoc/move-mark/v1';
const VERSION_BYTES = 4;
/** Longer than an offer and its acceptance may take. After it, whoever opens the project ends a move that was cut short. */
const HAND_OVER_MS = 15_000;

/** @returns one line: base64url of `key version 4 | nonce 12 | ciphertext | tag 16`. */
export function sealMoveMark(project: string, cipher: ProjectCipher, mark: MoveMark): string {
  const version = Buffer.alloc(VERSION_BYTES);
  version.writeUInt32BE(cipher.version);
  const key = cipher.subkey(cipher.version, MARK_KEY) as KeyObject;
  const sealed = seal(key, Buffer.from(JSON.stringify(moveMarkSchema.parse(mark))), aadOf(MARK_KEY, project));
  return `${MOVE_MARK_BEGINS}${Buffer.concat([version, sealed]).toString('base64url')}`;
}

/**
 * @param keyOf the key of marks in one version; undefined when there is no such version.
 * @returns undefined for any text that {@link sealMoveMark} did not make under the key of this project.
 */
export async function openMoveMark(
  project: string,
  text: string,
  keyOf: (version: number) => Promise<KeyObject | undefined>,
): Promise<MoveMark | undefined> {
  const bytes = Buffer.from(text.slice(MOVE_MARK_BEGINS.length), 'base64url');
  if (!text.startsWith(MOVE_MARK_BEGINS) || text.length > MOVE_MARK_BYTES_MAX) return undefined;
  if (bytes.length < VERSION_BYTES) return undefined;
  const version = bytes.readUInt32BE();
  const key = version === 0 ? undefined : await keyOf(version);
  if (key === undefined) return undefined;
  try {
    const opened = open(key, bytes.subarray(VERSION_BYTES), aadOf(MARK_KEY, project));
    return moveMarkSchema.parse(JSON.parse(opened.toString()));
  } catch (error) {
    if (error instanceof OpenError) return undefined;
    throw error;
  }
}

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
