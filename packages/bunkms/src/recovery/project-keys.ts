import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type DeletionMark, deletionMarkSchema } from '@bundoc/shared/contract/deletion-mark';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import {
  DELETION_FILE,
  PROJECT_FILE,
  PROJECT_FILE_COPY,
  PROJECTS_FOLDER,
  type ProjectFile,
  projectFileSchema,
} from '@bundoc/shared/contract/project-file';

/** A wrapped version of a key, as a project's file has it; nothing of it is certain before it is unwrapped. */
export interface WrappedVersion {
  readonly version: number;
  readonly kcv: string;
  readonly wrapped: Buffer;
}

/** The key of a project, as its files have it. */
export interface ProjectKey {
  readonly project: string;
  readonly name: string;
  readonly id: string;
  readonly createdAt: string;
  /** From `project.json` and from its copy, which may differ in their wrapping. */
  readonly versions: readonly WrappedVersion[];
}

/** A project whose files say nothing of its key. */
export interface UnreadableProject {
  readonly project: string;
  readonly problem: string;
}

/** A project without a file of its key, and with a mark which says that the key was destroyed. Anybody may have put it there. */
export interface DeletedProject {
  readonly project: string;
  readonly name: string;
  readonly keyDestroyedAt: string;
}

/** There is no folder of projects. */
export class NoDataFolder extends Error {
  override readonly name = 'NoDataFolder';
}

/** Bytes of the largest file that is read; one of 1000 versions has a tenth. */
const FILE_BYTES_MAX = 4_194_304;

/** The projects in a data folder of Bundoc, in order. @throws NoDataFolder. */
export async function projectsIn(dataDir: string): Promise<string[]> {
  const directory = join(dataDir, PROJECTS_FOLDER);
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    throw new NoDataFolder(`${dataDir} is no data folder of Bundoc: it has no "${PROJECTS_FOLDER}"`, {
      cause: error,
    });
  }
  return names.filter((name) => projectIdSchema.safeParse(name).data === name).sort();
}

/**
 * Reads what a project's files have of its key; Bundoc may run, since it replaces them as a whole. The mark of a deletion counts where there
 * is nothing else to be read: it is not authentic, so it must not keep a key from coming back.
 */
export async function readProjectKey(
  dataDir: string,
  project: string,
): Promise<ProjectKey | UnreadableProject | DeletedProject> {
  const directory = join(dataDir, PROJECTS_FOLDER, project);
  const problems: string[] = [];
  const files: ProjectFile[] = [];
  for (const name of [PROJECT_FILE, PROJECT_FILE_COPY]) {
    const file = await readProjectFile(project, join(directory, name));
    if (typeof file === 'string') problems.push(`${name} ${file}`);
    else files.push(file);
  }
  const [first] = files;
  if (first === undefined) {
    const mark = await readDeletionMark(project, join(directory, DELETION_FILE));
    return mark?.keyDestroyedAt === undefined
      ? { project, problem: problems.join(', ') }
      : { project, name: dekNameOf(project), keyDestroyedAt: mark.keyDestroyedAt };
  }
  if (files.some(({ key }) => key.id !== first.key.id))
    return { project, problem: `${PROJECT_FILE} and ${PROJECT_FILE_COPY} name different keys` };
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

/** @returns why there is nothing to be read. */
async function readProjectFile(project: string, path: string): Promise<ProjectFile | string> {
  const content = await readSmallFile(path);
  if (content === undefined) return 'is missing';
  if (typeof content === 'string') return content;
  const file = projectFileSchema.safeParse(parsed(content));
  const isOfProject = file.data?.project === project && file.data.key.name === dekNameOf(project);
  return file.success && isOfProject ? file.data : 'is no project file of this project';
}

/** @returns undefined when there is none that can be read. */
async function readDeletionMark(project: string, path: string): Promise<DeletionMark | undefined> {
  const content = await readSmallFile(path);
  if (!Buffer.isBuffer(content)) return undefined;
  const mark = deletionMarkSchema.safeParse(parsed(content)).data;
  return mark?.deleted === project ? mark : undefined;
}

/** @returns why it cannot be read; undefined when there is none. */
export async function readSmallFile(path: string): Promise<Buffer | string | undefined> {
  try {
    // A folder of data is not to be trusted: no link to another place, no pipe that never ends.
    await using handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stats = await handle.stat();
    if (!stats.isFile() || stats.size > FILE_BYTES_MAX) return 'is no project file';
    return await handle.readFile();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? undefined : `cannot be read (${code})`;
  }
}

function parsed(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    return undefined;
  }
}
