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

/** A project of which a storage has content. */
export interface ContentOf {
  readonly project: string;
  /** The id of its key, as the content has it; undefined when that is not known. */
  readonly keyId?: string;
  /** Why nothing is known of its key. */
  readonly problem?: string;
  /** It is being moved, or was: another storage may have content of it as well. */
  readonly isMarked?: boolean;
}

/** What became of the key of one project. */
export interface ClaimedKey {
  readonly project: string;
  readonly key: string;
  readonly outcome:
    | 'claimed'
    /** The storage held it before. */
    | 'held'
    | 'elsewhere'
    | 'destroyed'
    | 'missing'
    | 'damaged'
    /** The project is being moved, or was: an administrator decides by `bunkms key claim`. */
    | 'moving'
    /** The content is not of the key that has this name. */
    | 'another-key'
    | 'unreadable';
  /** The storage that holds it instead. */
  readonly holder?: string;
  readonly problem?: string;
}

const storageFileSchema = z.object({ id: storageIdSchema });
const STORAGE_FILE = 'storage.json';
/** Marks of a move, which leave it open where the project is. */
const MOVE_MARKS: readonly string[] = ['move.mark', 'move.json'];

/** The id of the storage that a data folder of Bundoc is; undefined when the folder does not say. */
export function storageOfFolder(folder: DataFolder): string | undefined {
  const content = readSmallFile(folder, STORAGE_FILE);
  if (!Buffer.isBuffer(content)) return undefined;
  try {
    return storageFileSchema.safeParse(JSON.parse(content.toString('utf8'))).data?.id;
  } catch {
    return undefined;
  }
}

/** The projects that have content in a data folder of Bundoc. @throws NoDataFolder. */
export async function* contentOfFolder(folder: DataFolder): AsyncGenerator<ContentOf> {
  for (const project of projectsIn(folder)) {
    const key = readProjectKey(folder, project);
    const entries = entriesOf(folder, project);
    if (entries.some((name) => MOVE_MARKS.includes(name))) yield { project, isMarked: true };
    else if ('id' in key) yield { project, keyId: key.id };
    else if ('problem' in key && entries.some((name) => name !== DELETION_FILE))
      yield { project, problem: key.problem };
  }
}

/** What is in a project's folder; what cannot be listed counts as content. */
function entriesOf(folder: DataFolder, project: string): readonly string[] {
  try {
    return listSync(folder, join(PROJECTS_FOLDER, project));
  } catch {
    return [project];
  }
}

/**
 * Claims, as an administrator, the key of every project of which a storage has content: each key that nobody
 * holds, or nobody knows who. What another storage holds stays there. May be cut off, and run again, at any
 * time.
 *
 * @returns what became of each key, one after the other.
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
