import { join } from 'node:path';
import { CATALOG_FILE, CATALOG_HEAD_BYTES_MAX, parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { type DeletionMark, deletionMarkSchema } from '@bundoc/shared/contract/deletion-mark';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import {
  DELETION_FILE,
  PROJECT_FILE,
  PROJECTS_FOLDER,
  type ProjectFile,
  projectFileSchema,
} from '@bundoc/shared/contract/project-file';
import { codeOf, DataFolder, UnsafeEntry } from '@bundoc/shared/files/data-folder';
import { listSync, readSmallSync, readStartSync } from '@bundoc/shared/files/small-files';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { backedUpProjects, hasBackups, projectFileInBackup } from './backed-up-projects.ts';

/** A wrapped key version from a project's file. It is not trusted before it is unwrapped. */
export interface WrappedVersion {
  readonly version: number;
  readonly kcv: string;
  readonly wrapped: Buffer;
}

/** The key of a project according to its files. */
export interface ProjectKey {
  readonly project: string;
  readonly name: string;
  readonly id: string;
  readonly createdAt: string;
  /** Versions from `project.json` and from its copy, which may differ in their wrapping. */
  readonly versions: readonly WrappedVersion[];
}

/** A project whose files do not give its key. */
export interface UnreadableProject {
  readonly project: string;
  readonly problem: string;
}

/**
 * A project without a project file, and with a marker that its key was destroyed. Anybody may have written
 * the marker.
 */
export interface DeletedProject {
  readonly project: string;
  readonly name: string;
  readonly keyDestroyedAt: string;
}

/** The folder has neither projects nor backups of them. */
export class NoDataFolder extends Error {
  override readonly name = 'NoDataFolder';
}

/** Its name in messages. */
const COPY = `the copy in ${CATALOG_FILE}`;
/** Maximum bytes of a file. With 1,000 versions it has a quarter of that at most. */
const FILE_BYTES_MAX = 4_194_304;

/** Opens Bundoc's data folder, or a folder of backups. Its content is not trusted. @throws NoDataFolder. */
export function openDataFolder(dataDir: string): DataFolder {
  try {
    return DataFolder.open(dataDir);
  } catch (error) {
    throw noDataFolder(dataDir, error);
  }
}

/** The ids of the projects in such a folder, in order. @throws NoDataFolder. */
export function projectsIn(folder: DataFolder): string[] {
  let names: string[];
  try {
    if (hasBackups(folder)) return backedUpProjects(folder);
    names = listSync(folder, PROJECTS_FOLDER);
  } catch (error) {
    throw noDataFolder(folder.path, error);
  }
  return names.filter((name) => projectIdSchema.safeParse(name).data === name).sort();
}

function noDataFolder(dataDir: string, cause: unknown): NoDataFolder {
  return new NoDataFolder(
    `${dataDir} is neither a data folder of Bundoc, with "${PROJECTS_FOLDER}", nor a folder of "bundoc backup --all", with a manifest`,
    { cause },
  );
}

/**
 * Reads the key of a project from its files. Bundoc may run, because it replaces them atomically. The
 * deletion marker counts only if no other file is readable: it is not authenticated, so it must not prevent
 * the recovery of a key.
 */
export function readProjectKey(
  folder: DataFolder,
  project: string,
): ProjectKey | UnreadableProject | DeletedProject {
  const directory = join(PROJECTS_FOLDER, project);
  const problems: string[] = [];
  const files: ProjectFile[] = [];
  const contents = hasBackups(folder)
    ? ([['the backup', projectFileInBackup(folder, project, FILE_BYTES_MAX)]] as const)
    : ([
        [PROJECT_FILE, readSmallFile(folder, join(directory, PROJECT_FILE))],
        [COPY, readCopy(folder, join(directory, CATALOG_FILE))],
      ] as const);
  for (const [name, content] of contents) {
    const file = projectFileOf(project, content);
    if (typeof file === 'string') problems.push(`${name} ${file}`);
    else files.push(file);
  }
  const [first] = files;
  if (first === undefined) {
    const mark = readDeletionMark(folder, project, join(directory, DELETION_FILE));
    return mark?.keyDestroyedAt === undefined
      ? { project, problem: problems.join(', ') }
      : { project, name: dekNameOf(project), keyDestroyedAt: mark.keyDestroyedAt };
  }
  if (files.some(({ key }) => key.id !== first.key.id))
    return { project, problem: `${PROJECT_FILE} and ${COPY} name different keys` };
  return {
    project,
    name: first.key.name,
    id: first.key.id,
    createdAt: new Date(first.createdAt).toISOString(),
    versions: files.flatMap(({ versions }) =>
      versions.map(({ wrapped, ...version }) => ({ ...version, wrapped: Buffer.from(wrapped, 'base64') })),
    ),
  };
}

/** @returns the file, or why it is unusable. */
function projectFileOf(project: string, content: Buffer | string | undefined): ProjectFile | string {
  if (content === undefined) return 'is missing';
  if (typeof content === 'string') return content;
  const file = projectFileSchema.safeParse(parseJson(content.toString()));
  const isOfProject = file.data?.project === project && file.data.key.name === dekNameOf(project);
  return file.success && isOfProject ? file.data : 'is not a project file of this project';
}

/**
 * The copy of `project.json` in the unencrypted head of the catalog.
 *
 * @returns why it cannot be read; undefined when it does not exist.
 */
function readCopy(folder: DataFolder, path: string): Buffer | string | undefined {
  const start = readStart(folder, path);
  if (!Buffer.isBuffer(start)) return start;
  return parseCatalogHead(start)?.projectFile ?? 'is damaged';
}

/** @returns undefined when no readable marker exists. */
function readDeletionMark(folder: DataFolder, project: string, path: string): DeletionMark | undefined {
  const content = readSmallFile(folder, path);
  if (!Buffer.isBuffer(content)) return undefined;
  const mark = deletionMarkSchema.safeParse(parseJson(content.toString())).data;
  return mark?.deleted === project ? mark : undefined;
}

function readStart(folder: DataFolder, path: string): Buffer | string | undefined {
  try {
    return readStartSync(folder, path, CATALOG_HEAD_BYTES_MAX);
  } catch (error) {
    return error instanceof UnsafeEntry ? error.problem : `cannot be read (${codeOf(error)})`;
  }
}

/** @returns the content, or why it cannot be read; undefined when it does not exist. */
export function readSmallFile(folder: DataFolder, path: string): Buffer | string | undefined {
  try {
    return readSmallSync(folder, path, FILE_BYTES_MAX);
  } catch (error) {
    return error instanceof UnsafeEntry ? error.problem : `cannot be read (${codeOf(error)})`;
  }
}
