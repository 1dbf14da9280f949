import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { KeyCache } from '../../crypto/key-cache.ts';
import { isUnderOutsideKey } from '../../kms/outside-keys.ts';
import type { KeyService, LeasedKey } from '../../kms/port.ts';
import type { LeasedKeys, ProjectKey } from './project-file.ts';

/**
 * The current version of a project's key, and every other that its file lists and that was not destroyed.
 *
 * @param beforeOutside called before an outside key of a customer is asked: that may take long.
 * @throws AppError `key_missing`, also when all versions that the file lists were destroyed;
 *   `project_unclaimed` when no storage holds the key; those of the key service.
 */
export async function keysOfFile(
  keys: KeyCache,
  project: string,
  file: ProjectFile,
  beforeOutside?: () => void,
): Promise<LeasedKeys> {
  if (file.versions.some(({ wrapped }) => isUnderOutsideKey(wrapped))) {
    keys.expectOutside(project);
    if (!keys.has(project)) beforeOutside?.();
  }
  try {
    let current = await keys.get(project);
    if (file.versions.some(({ version }) => version > current.version)) {
      // Another node knows of a rotation that this one has missed.
      keys.evict(project);
      current = await keys.get(project);
    }
    const others = file.versions.filter(({ version }) => version !== current.version);
    const isListed = others.length < file.versions.length;
    const found = await undestroyed(others.map(({ version }) => keys.get(project, version)));
    // The name key only opens under a listed version.
    if (!isListed && found.length === 0) throw new AppError('key_missing');
    return [current, ...found];
  } catch (error) {
    if (hasCode(error, 'key_not_found')) throw new AppError('key_missing', { cause: error });
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    throw error;
  }
}

/**
 * Asks the key service whether a project was deleted, as a mark claims.
 *
 * @returns when it was not: the key exists, or never existed.
 * @throws AppError `project_destroyed` when it was; `project_unclaimed`, and those of the key service, when
 *   that is unknown.
 */
export async function requireNotDestroyed(keys: KeyCache, project: string): Promise<void> {
  // Another node may have deleted the project while its key was cached here.
  if (keys.has(project)) keys.evict(project);
  try {
    await keys.get(project);
  } catch (error) {
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    if (!hasCode(error, 'key_not_found')) throw error;
  }
}

/**
 * The key of a project without content: the one that this storage holds, one that no storage holds, or a new
 * one.
 *
 * @throws AppError those of the key service, including `project_elsewhere`.
 */
export async function mintOrAdopt(keys: KeyCache, project: string): Promise<ProjectKey> {
  // The cached key may be from before a deletion of the project.
  if (keys.has(project)) keys.evict(project);
  // Creates without looking first: almost always there is no key, and a failed lookup costs a request and a
  // CRITICAL audit record. Creating leaves an existing key unchanged.
  const isMade = await keys.create(project);
  try {
    return { key: await keys.get(project), isAdopted: !isMade };
  } catch (error) {
    if (!isMade && hasCode(error, 'key_unheld')) return { key: await keys.claim(project), isAdopted: false };
    // The key was created and removed again, or is unheld: another request is using this name.
    if (hasCode(error, 'key_not_found', 'key_unheld'))
      throw new AppError('kms_unavailable', { cause: error, retryAfterS: 1 });
    throw error;
  }
}

/**
 * The versions that still exist. An operator may destroy a version that no longer seals anything. Anything
 * that it still seals does not open, like a damaged part.
 */
async function undestroyed(leases: readonly Promise<LeasedKey>[]): Promise<LeasedKey[]> {
  const found = await Promise.all(
    leases.map(async (lease) => {
      try {
        return await lease;
      } catch (error) {
        if (hasCode(error, 'key_version_destroyed')) return undefined;
        throw error;
      }
    }),
  );
  return found.filter((key) => key !== undefined);
}

/** The part of BunKMS that tools need without the service. */
export type KeyExporter = Pick<KeyService, 'exportKey'>;

/**
 * Fetches the key versions that a project file lists, except destroyed ones: latest first, each once.
 *
 * @throws AppError `key_missing` when all were destroyed, and those of the key service.
 */
export function leasing(project: string, keys: KeyExporter): (file: ProjectFile) => Promise<LeasedKeys> {
  const fetched = new Map<number, Promise<LeasedKey>>();
  return async (file) => {
    const versions = file.versions.map(({ version }) => version).sort((a, b) => b - a);
    const leases = versions.map((version) => {
      const lease = fetched.get(version) ?? keys.exportKey(dekNameOf(project), version);
      fetched.set(version, lease);
      return lease;
    });
    const [latest, ...others] = await undestroyed(leases);
    if (latest === undefined) throw new AppError('key_missing');
    return [latest, ...others];
  };
}
