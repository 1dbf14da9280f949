import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { DELETION_FILE, PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import type { DataFolder } from '@bundoc/shared/files/data-folder';
import { listSync } from '@bundoc/shared/files/small-files';
import { z } from 'zod';
import { claimKey } from '../keys/key-holder.ts';
import { type KeyDeps, readStoredKey } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import { projectsIn, readProjectKey, readSmallFile } from './project-keys.ts';

/** A project with content in a storage. */
export interface ContentOf {
  readonly project: string;
  /** The id of its key according to the content; undefined when unknown. */
  readonly keyId?: string;
  /** Why its key is unknown. */
  readonly problem?: string;
  /** It is being moved, or was: another storage may also have its content. */
  readonly isMarked?: boolean;
}

/** The result for the key of one project. */
export interface ClaimedKey {
  readonly project: string;
  readonly key: string;
  readonly outcome:
    | 'claimed'
    /** The storage held it already. */
    | 'held'
    | 'elsewhere'
    | 'destroyed'
    | 'missing'
    | 'damaged'
    /** The project is being moved, or was: an administrator decides with `bunkms key claim`. */
    | 'moving'
    /** The content belongs to another key than the one with this name. */
    | 'another-key'
    | 'unreadable';
  /** The storage that holds it instead. */
  readonly holder?: string;
  readonly problem?: string;
}

const storageFileSchema = z.object({ id: storageIdSchema });
const STORAGE_FILE = 'storage.json';
/** Markers of a move, with which the location of the project is uncertain. */
const MOVE_MARKS: readonly string[] = ['move.mark', 'move.json'];

/** The storage id of a data folder of Bundoc; undefined when the folder has none. */
export function storageOfFolder(folder: DataFolder): string | undefined {
  const content = readSmallFile(folder, STORAGE_FILE);
  if (!Buffer.isBuffer(content)) return undefined;
  try {
    return storageFileSchema.safeParse(JSON.parse(content.toString('utf8'))).data?.id;
  } catch {
    return undefined;
  }
}

/** The projects with content in a data folder of Bundoc, or in a folder of backups. @throws NoDataFolder. */
export async function* contentOfFolder(folder: DataFolder): AsyncGenerator<ContentOf> {
  for (const project of projectsIn(folder)) {
    const key = readProjectKey(folder, project);
    const entries = listEntries(folder, project);
    if (entries.some((name) => MOVE_MARKS.includes(name))) yield { project, isMarked: true };
    else if ('id' in key) yield { project, keyId: key.id };
    else if ('problem' in key && entries.some((name) => name !== DELETION_FILE))
      yield { project, problem: key.problem };
  }
}

/** The entries of a project's folder. A folder that cannot be listed counts as content. */
function listEntries(folder: DataFolder, project: string): readonly string[] {
  try {
    return listSync(folder, join(PROJECTS_FOLDER, project));
  } catch {
    return [project];
  }
}

/**
 * Claims, as an administrator, the key of every project with content in a storage, if the key has no holder
 * or an unknown one. Keys that another storage holds stay there. It may be interrupted and run again at any
 * time.
 *
 * @returns the result for each key, one by one.
 * @throws AppError of the store.
 */
export async function* claimKeys(
  deps: KeyDeps,
  storage: string,
  content: AsyncIterable<ContentOf>,
  caller: Caller,
): AsyncGenerator<ClaimedKey> {
  for await (const one of content) {
    const { project, problem } = one;
    const key = dekNameOf(project);
    if (one.isMarked === true) yield { project, key, outcome: 'moving' };
    else if (problem === undefined)
      yield { project, key, ...(await claim(deps, storage, key, one.keyId, caller)) };
    else yield { project, key, outcome: 'unreadable', problem };
  }
}

async function claim(
  deps: KeyDeps,
  storage: string,
  name: string,
  keyId: string | undefined,
  caller: Caller,
): Promise<Pick<ClaimedKey, 'outcome' | 'holder'>> {
  try {
    const { record } = await readStoredKey(deps, name, 'current');
    if (keyId !== undefined && record.id !== keyId) return { outcome: 'another-key' };
    await claimKey(deps, { name, storage }, true, caller);
    return { outcome: record.holder === storage ? 'held' : 'claimed' };
  } catch (error) {
    if (hasCode(error, 'key_held_elsewhere') && error.storage !== undefined)
      return { outcome: 'elsewhere', holder: error.storage };
    if (hasCode(error, 'key_not_found')) return { outcome: 'missing' };
    if (hasCode(error, 'key_destroyed')) return { outcome: 'destroyed' };
    if (hasCode(error, 'key_damaged')) return { outcome: 'damaged' };
    throw error;
  }
}
