import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { type ProjectFile, projectFileSchema } from '@bundoc/shared/contract/project-file';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { newNameKey, openNameKey, ProjectCipher, sealNameKey } from '../../crypto/project-cipher.ts';
import type { LeasedKey } from '../../kms/port.ts';
import type { UnknownSealers } from '../port/seal-budget.ts';

/**
 * Maximum size of a project file or a mark, bytes; a project file with 1,000 key versions has a quarter of it
 * at most.
 */
export const SMALL_FILE_BYTES_MAX = 4_194_304;

/** @throws AppError `project_damaged` unless it is a project file of this project. */
export function parseProjectFile(project: string, content: Buffer): ProjectFile {
  try {
    const file = projectFileSchema.parse(JSON.parse(content.toString('utf8')));
    if (file.project === project && file.key.name === dekNameOf(project)) return file;
  } catch (error) {
    throw new AppError('project_damaged', { cause: error });
  }
  throw new AppError('project_damaged', { cause: new Error('project.json is of another project') });
}

export function formatProjectFile(file: ProjectFile): Buffer {
  return Buffer.from(`${JSON.stringify(file, null, 2)}\n`);
}

/** A storage, and when an administrator last let a copy of it take over. */
export interface TakenOver {
  readonly id: string;
  /** As of BunKMS, which raises it with each take-over and each restore of its own; 0 for never. */
  readonly takenOverMs: number;
}

/**
 * The unknown others that may have sealed under this key version: copies of the storage, if it was taken over
 * since the version was first used in it; and an owner of the key from before the project.
 */
export function unknownSealers(
  file: ProjectFile,
  version: number,
  { id, takenOverMs }: TakenOver,
): UnknownSealers {
  const known = file.versions.find((entry) => entry.version === version);
  const usedSince = known?.takenOver?.storage === id ? known.takenOver.ms : 0;
  return { takenOver: takenOverMs > usedSince, missing: known?.adopted === true };
}

/** The file of a new project, with a new name key. @param isAdopted whether the key already existed. */
export function newProjectFile(
  project: string,
  { key, isAdopted }: ProjectKey,
  createdAt: Date,
  storage: TakenOver,
): ProjectFile {
  const entry: VersionEntry = { ...versionOf(key, storage), ...(isAdopted ? { adopted: true } : {}) };
  return {
    format: 1,
    project,
    createdAt: createdAt.toISOString(),
    key: { name: dekNameOf(project), id: key.keyId },
    versions: [entry],
    nameKey: [sealedNameKeyOf(project, key, newNameKey(), entry)],
  };
}

/** The file with the current wrappings of the key's versions; undefined when it already has them. */
export function withWrappings(file: ProjectFile, keys: readonly LeasedKey[]): ProjectFile | undefined {
  const versions = file.versions.map((entry) => {
    const key = keys.find(({ version, kcv }) => version === entry.version && kcv === entry.kcv);
    return key === undefined || key.wrapped === entry.wrapped ? entry : { ...entry, wrapped: key.wrapped };
  });
  return versions.every((entry, at) => entry === file.versions[at]) ? undefined : { ...file, versions };
}

/**
 * The file with a new key version, so that its DEK opens the name key as well. It must be durable before
 * anything is sealed under that version.
 *
 * @param keys the new version first, then all that the file lists.
 * @throws AppError `key_mismatch` unless the new version is later than all that are listed.
 */
export function withNewVersion(file: ProjectFile, keys: LeasedKeys, storage: TakenOver): ProjectFile {
  const [current, ...known] = keys;
  if (known.some(({ version }) => version >= current.version)) throw new AppError('key_mismatch');
  const nameKey = nameKeyOf(file, known);
  const entry = versionOf(current, storage);
  return {
    ...file,
    versions: [...file.versions, entry],
    nameKey: [...file.nameKey, sealedNameKeyOf(file.project, current, nameKey, entry)],
  };
}

/**
 * The cipher of a project. It first proves that the keys are the project's own: same id, known versions, same
 * check values, and the name key opens under each.
 *
 * @param keys the current version first, then the others that the file lists.
 * @throws AppError `key_mismatch`, `project_damaged`.
 */
export function openCipher(file: ProjectFile, keys: LeasedKeys): ProjectCipher {
  return new ProjectCipher(file.project, keys, nameKeyOf(file, keys));
}

/** The key of a new project. */
export interface ProjectKey {
  readonly key: LeasedKey;
  /** Whether it existed and was held: this request has neither created nor claimed it. */
  readonly isAdopted: boolean;
}

/** Leased versions of one project's key, the current one first. */
export type LeasedKeys = readonly [LeasedKey, ...LeasedKey[]];

function nameKeyOf(file: ProjectFile, keys: readonly LeasedKey[]): KeyObject {
  let nameKey: KeyObject | undefined;
  for (const key of keys) {
    const known = file.versions.find(({ version }) => version === key.version);
    const sealed = file.nameKey.find(({ version }) => version === key.version);
    if (file.key.id !== key.keyId || known?.kcv !== key.kcv || sealed === undefined)
      throw new AppError('key_mismatch');
    const opened = openNameKeyOf(file.project, key, Buffer.from(sealed.sealed, 'base64'), known);
    if (nameKey !== undefined && !nameKey.equals(opened)) throw new AppError('project_damaged');
    nameKey = opened;
  }
  if (nameKey === undefined) throw new AppError('key_mismatch');
  return nameKey;
}

type VersionEntry = ProjectFile['versions'][number];

/**
 * The facts that may trigger a rotation. They are authenticated with the sealed name key, which prevents
 * anyone from adding or removing them. Empty for a version without any.
 */
function authenticatedFacts({ adopted, takenOver }: VersionEntry): string[] {
  return [
    ...(adopted === undefined ? [] : ['adopted']),
    ...(takenOver === undefined ? [] : [takenOver.storage, String(takenOver.ms)]),
  ];
}

function versionOf({ version, kcv, wrapped }: LeasedKey, { id, takenOverMs: ms }: TakenOver): VersionEntry {
  return { version, kcv, wrapped, ...(ms === 0 ? {} : { takenOver: { storage: id, ms } }) };
}

function sealedNameKeyOf(
  project: string,
  key: LeasedKey,
  nameKey: KeyObject,
  entry: VersionEntry,
): ProjectFile['nameKey'][number] {
  const sealed = sealNameKey(project, key, nameKey, authenticatedFacts(entry));
  return { version: key.version, sealed: sealed.toString('base64') };
}

function openNameKeyOf(project: string, key: LeasedKey, sealed: Buffer, entry: VersionEntry): KeyObject {
  try {
    return openNameKey(project, key, sealed, authenticatedFacts(entry));
  } catch (error) {
    if (error instanceof OpenError) throw new AppError('project_damaged', { cause: error });
    throw error;
  }
}
