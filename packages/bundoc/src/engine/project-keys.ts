import assert from 'node:assert/strict';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { KeyService, LeasedKey } from '../kms/port.ts';
import type { LeasedKeys, ProjectKey } from './project-file.ts';

/**
 * The current version of a project's key, and every other that its file lists.
 *
 * @throws AppError `key_missing`; `project_unclaimed` when nobody holds the key; those of the key service.
 */
export async function keysOfFile(keys: KeyCache, project: string, file: ProjectFile): Promise<LeasedKeys> {
  try {
    let current = await keys.get(project);
    if (file.versions.some(({ version }) => version > current.version)) {
      // Another node knows of a rotation that this one has not heard of.
      keys.evict(project);
      current = await keys.get(project);
    }
    const others = file.versions.filter(({ version }) => version !== current.version);
    return [current, ...(await Promise.all(others.map(({ version }) => keys.get(project, version))))];
  } catch (error) {
    if (hasCode(error, 'key_not_found')) throw new AppError('key_missing', { cause: error });
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    throw error;
  }
}

/**
 * Asks the key service whether a project was deleted, as a mark says.
 *
 * @returns when it was not: the key is there, or no such key ever was.
 * @throws AppError `project_destroyed` when it was; `project_unclaimed`, and those of the key service, when
 * nothing is known.
 */
export async function requireNotDestroyed(keys: KeyCache, project: string): Promise<void> {
  // Another node may have deleted the project while its key was kept here.
  if (keys.has(project)) keys.evict(project);
  try {
    await keys.get(project);
  } catch (error) {
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    if (!hasCode(error, 'key_not_found')) throw error;
  }
}

/**
 * The key of a project that has no content: the one that this storage holds, one that nobody holds, or a new
 * one.
 *
 * @throws AppError those of the key service, among them `project_elsewhere`.
 */
export async function mintOrAdopt(keys: KeyCache, project: string): Promise<ProjectKey> {
  // What is kept of a key may be from before its project was deleted.
  if (keys.has(project)) keys.evict(project);
  // Not looked for first: nearly always there is none, and a look in vain costs a request and a CRITICAL
  // record. A key that exists is not changed by this.
  const isMade = await keys.create(project);
  try {
    return { key: await keys.get(project), isAdopted: !isMade };
  } catch (error) {
    if (!isMade && hasCode(error, 'key_unheld')) return { key: await keys.claim(project), isAdopted: false };
    // It was made and is gone again, or nobody holds it: somebody else is at work on this name.
    if (hasCode(error, 'key_not_found', 'key_unheld'))
      throw new AppError('kms_unavailable', { cause: error, retryAfterS: 1 });
    throw error;
  }
}

/** What a tool that works on projects without the service asks BunKMS for. */
export type KeyExporter = Pick<KeyService, 'exportKey'>;

/** Fetches the versions of the key that a project file lists, the latest first, each once. */
export function leasing(project: string, keys: KeyExporter): (file: ProjectFile) => Promise<LeasedKeys> {
  const fetched = new Map<number, Promise<LeasedKey>>();
  return async (file) => {
    const versions = file.versions.map(({ version }) => version).sort((a, b) => b - a);
    const leases = versions.map((version) => {
      const lease = fetched.get(version) ?? keys.exportKey(dekNameOf(project), version);
      fetched.set(version, lease);
      return lease;
    });
    const [latest, ...others] = await Promise.all(leases);
    assert(latest !== undefined, 'a project file lists a version');
    return [latest, ...others];
  };
}
