import { AppError } from '@bundoc/shared/contract/app-error';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import type { Logger } from '@bundoc/shared/logs/logger';
import { StartRefused } from '@bundoc/shared/process/lifecycle';
import { z } from 'zod';
import type { StorageCalls } from '../kms/port.ts';
import type { StorageIdentity } from './identity/storage-file.ts';
import type { StorageGenerationOptions } from './identity/storage-generation.ts';
import { positionAt } from './port/positions.ts';
import type { StorageEngine } from './storage-engine.ts';

/**
 * Lost projects: this storage holds their keys and not their content, because an older copy of the storage
 * has taken over. Each has a mark until an administrator accepts the loss, or the project arrives again.
 *
 * Nothing authenticates a mark. It can only refuse a project that the storage does not have.
 */
export interface LostProjects {
  /** The number of marks, as last read. */
  readonly count: number;
  /** Returns those of `projects` that have no content and no other mark in the storage. */
  absent(projects: readonly string[]): Promise<readonly string[]>;
  /** Marks these projects, durably. Earlier marks stay. */
  mark(projects: readonly string[]): Promise<void>;
  /** The marked projects that are still absent, by name. */
  list(): Promise<readonly string[]>;
  /** Removes these marks, durably. */
  accept(projects: readonly string[]): Promise<void>;
}

/** Below the data folder. */
export const LOST_FILE = 'lost-projects.json';
/** Maximum number of marks. */
export const LOST_MAX = 400_000;
/** Maximum size of the file: that many of the longest ids. */
export const LOST_BYTES_MAX = 33_554_432;

const FORMAT = 1;
const lostFileSchema = z.strictObject({
  format: z.literal(FORMAT),
  projects: z.array(projectIdSchema).max(LOST_MAX),
});

export function formatLost(projects: Iterable<string>): string {
  return `${JSON.stringify({ format: FORMAT, projects: [...projects].sort() })}\n`;
}

/** @param place its name for the operator. @throws StartRefused for any other content. */
export function parseLost(place: string, content: string): readonly string[] {
  try {
    return lostFileSchema.parse(JSON.parse(content)).projects;
  } catch (error) {
    throw lostDamaged(place, error);
  }
}

export function lostDamaged(place: string, cause: unknown): StartRefused {
  return new StartRefused(
    `${place} is damaged. It names the projects that a restore has lost: restore it from a backup, or remove it, which accepts their loss`,
    { cause },
  );
}

/** The refusal of a lost project. Clients with any token read it. */
export function projectLost(): AppError {
  return new AppError('project_damaged', {
    detail:
      'the storage holds the key of this project and has nothing of it: a take-over has lost it, or it was never written. Restore it, or let an administrator accept the loss (bundoc accept-loss)',
    cause: new Error('the project is lost since a take-over of the storage'),
  });
}

export interface LostProjectsDeps {
  readonly storage: { readonly lost: LostProjects; readonly identity: Pick<StorageIdentity, 'read'> };
  readonly calls: Pick<StorageCalls, 'heldProjects'>;
  /** The id of the storage. */
  readonly id: string;
  readonly logger: Logger;
}

/**
 * Marks every project whose key the storage holds but whose content it lacks. May be repeated.
 *
 * @param before the last take-over that was stored when this began.
 * @param signal ends it.
 * @throws AppError of the key service and of the storage: nothing is marked then, and the caller repeats it.
 */
export async function markLost(deps: LostProjectsDeps, before: number, signal: AbortSignal): Promise<void> {
  const { lost, identity } = deps.storage;
  const found: string[] = [];
  // The keys are listed first, so that a project that is created meanwhile is not absent.
  for await (const projects of deps.calls.heldProjects(deps.id)) {
    if (signal.aborted) throw new AppError('storage_unavailable', { cause: signal.reason });
    found.push(...(await lost.absent(projects)));
    if (found.length > LOST_MAX)
      throw new AppError('storage_unavailable', { cause: new Error(`more than ${LOST_MAX} lost projects`) });
  }
  if (found.length === 0) return;
  // Another node has marked them meanwhile, so an administrator may have accepted losses already.
  if ((await identity.read()).takenOverMs !== before) return;
  await lost.mark(found);
  reportLost(deps);
}

/**
 * Logs the lost projects of earlier starts. @returns what a take-over needs before the storage is served:
 * that positions do not repeat, and {@link markLost}.
 */
export function watchTakeOvers(
  deps: LostProjectsDeps & { readonly storage: Pick<StorageEngine, 'skipPositions'> },
): NonNullable<StorageGenerationOptions['onTakenOver']> {
  reportLost(deps);
  return async (before, takenOverMs, signal) => {
    await deps.storage.skipPositions?.(positionAt(takenOverMs));
    await markLost(deps, before, signal);
  };
}

function reportLost({ storage, logger }: Pick<LostProjectsDeps, 'storage' | 'logger'>): void {
  const { count: projects } = storage.lost;
  if (projects === 0) return;
  logger.error(
    { projects },
    'projects are lost: the copy of the storage that took over lacks them, so they answer project_damaged; "bundoc accept-loss" lists them',
  );
}
