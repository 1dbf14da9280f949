import type { KeyObject } from 'node:crypto';
import { OpenError } from '@bundoc/shared/aead';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { z } from 'zod';
import { openNameKey, ProjectCipher, sealNewNameKey } from '../cipher/project-cipher.ts';
import type { LeasedKey } from '../kms/port.ts';

export const PROJECT_FILE = 'project.json';
/** The same bytes, beside the catalog: without them no document of the project could be named or found again. */
export const PROJECT_FILE_COPY = 'catalog-project.json';

const versionSchema = z.int().positive();

/** `project.json`, format 1 (docs/formats/project-file.md). It is in the clear and holds nothing that is secret. */
const projectFileSchema = z.strictObject({
  format: z.literal(1),
  project: projectIdSchema,
  createdAt: z.iso.datetime(),
  key: z.strictObject({ name: z.string(), id: z.uuid() }),
  versions: z
    .array(z.strictObject({ version: versionSchema, kcv: z.string(), wrapped: z.base64() }))
    .min(1)
    .max(1_000),
  nameKey: z
    .array(z.strictObject({ version: versionSchema, sealed: z.base64() }))
    .min(1)
    .max(1_000),
});
export type ProjectFile = z.infer<typeof projectFileSchema>;

/** @throws AppError `project_damaged` for content that is no project file of this project. */
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

/** The file of a new project, with a new name key. */
export function newProjectFile(project: string, key: LeasedKey, createdAt: Date): ProjectFile {
  return {
    format: 1,
    project,
    createdAt: createdAt.toISOString(),
    key: { name: dekNameOf(project), id: key.keyId },
    versions: [{ version: key.version, kcv: key.kcv, wrapped: key.wrapped }],
    nameKey: [
      {
        version: key.version,
        sealed: sealNewNameKey(project, key.version, key.dek).toString('base64'),
      },
    ],
  };
}

/** The file with the key's present wrapping, or undefined when it has that already. */
export function withWrapping(file: ProjectFile, key: LeasedKey): ProjectFile | undefined {
  const known = file.versions.find(({ version }) => version === key.version);
  if (known === undefined || known.wrapped === key.wrapped) return undefined;
  return {
    ...file,
    versions: file.versions.map((entry) => (entry === known ? { ...entry, wrapped: key.wrapped } : entry)),
  };
}

/**
 * The cipher of a project, once it is certain that the key is the project's own: same id, known version, same check
 * value, and the name key opens under it.
 *
 * @throws AppError `key_mismatch`.
 */
export function openCipher(file: ProjectFile, key: LeasedKey): ProjectCipher {
  const known = file.versions.find(({ version }) => version === key.version);
  const sealedNameKey = file.nameKey.find(({ version }) => version === key.version);
  if (file.key.id !== key.keyId || known?.kcv !== key.kcv || sealedNameKey === undefined)
    throw new AppError('key_mismatch');
  return new ProjectCipher(
    file.project,
    key.version,
    key.dek,
    openNameKeyOf(file, key, sealedNameKey.sealed),
  );
}

function openNameKeyOf(file: ProjectFile, key: LeasedKey, sealed: string): KeyObject {
  try {
    return openNameKey(file.project, key.version, key.dek, Buffer.from(sealed, 'base64'));
  } catch (error) {
    if (error instanceof OpenError) throw new AppError('project_damaged', { cause: error });
    throw error;
  }
}
