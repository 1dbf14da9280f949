import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { DELETION_FILE, PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { hasCode } from '@bundoc/shared/errors';
import { z } from 'zod';
import type { Caller } from '../audit/caller.ts';
import { claimKey } from '../service/key-holder.ts';
import { type KeyPorts, readStoredKey } from '../service/stored-key.ts';
import { projectsIn, readProjectKey, readSmallFile } from './project-keys.ts';

/** A project of which a storage has content. */
export interface ContentOf {
  readonly project: string;
  /** The id of its key, as the content has it; undefined when that is not known. */
  readonly keyId?: string;
  /** Why nothing can be told of its key. */
  readonly problem?: string;
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
    /** The content is not of the key that has this name. */
    | 'another-key'
    | 'unreadable';
  /** The storage that holds it instead. */
  readonly holder?: string;
  readonly problem?: string;
}

const storageFileSchema = z.object({ id: storageIdSchema });
const STORAGE_FILE = 'storage.json';
const MARKS: readonly string[] = [DELETION_FILE, 'move.json'];

/** The id of the storage that a data folder of Bundoc is; undefined when the folder does not say. */
export async function storageOfFolder(dataDir: string): Promise<string | undefined> {
  const content = await readSmallFile(join(dataDir, STORAGE_FILE));
  if (!Buffer.isBuffer(content)) return undefined;
  try {
    return storageFileSchema.safeParse(JSON.parse(content.toString('utf8'))).data?.id;
  } catch {
    return undefined;
  }
}

/** The projects that have content in a data folder of Bundoc. @throws NoDataFolder. */
export async function* contentOfFolder(dataDir: string): AsyncGenerator<ContentOf> {
  for (const project of await projectsIn(dataDir)) {
    const key = await readProjectKey(dataDir, project);
    if ('id' in key) yield { project, keyId: key.id };
    else if ('problem' in key && (await hasContent(dataDir, project)))
      yield { project, problem: key.problem };
  }
}

/** Whether a project's folder has anything in it but marks. */
async function hasContent(dataDir: string, project: string): Promise<boolean> {
  const names = await readdir(join(dataDir, PROJECTS_FOLDER, project)).catch(() => [project]);
  return names.some((name) => !MARKS.includes(name));
}

/**
 * Claims, as an administrator, the key of every project of which a storage has content: each key that nobody holds, or nobody knows who.
 * What another storage holds stays there. May be cut off, and run again, at any time.
 *
 * @returns what became of each key, one after the other.
 * @throws AppError of the store.
 */
export async function* claimKeys(
  ports: KeyPorts,
  storage: string,
  content: AsyncIterable<ContentOf>,
  caller: Caller,
): AsyncGenerator<ClaimedKey> {
  for await (const one of content) {
    const { project, problem } = one;
    const key = dekNameOf(project);
    if (problem === undefined)
      yield { project, key, ...(await claim(ports, storage, key, one.keyId, caller)) };
    else yield { project, key, outcome: 'unreadable', problem };
  }
}

async function claim(
  ports: KeyPorts,
  storage: string,
  name: string,
  keyId: string | undefined,
  caller: Caller,
): Promise<Pick<ClaimedKey, 'outcome' | 'holder'>> {
  try {
    const { record } = await readStoredKey(ports, name, 'current');
    if (keyId !== undefined && record.id !== keyId) return { outcome: 'another-key' };
    await claimKey(ports, { name, storage }, true, caller);
    return { outcome: record.holder === storage ? 'held' : 'claimed' };
  } catch (error) {
    if (hasCode(error, 'key_held_elsewhere') && error.storage !== undefined)
      return { outcome: 'elsewhere', holder: error.storage };
    if (hasCode(error, 'KEY_NOT_FOUND')) return { outcome: 'missing' };
    if (hasCode(error, 'key_destroyed')) return { outcome: 'destroyed' };
    if (hasCode(error, 'key_damaged')) return { outcome: 'damaged' };
    throw error;
  }
}
