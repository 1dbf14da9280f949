import assert from 'node:assert/strict';
import { join } from 'node:path';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { PROJECT_FILE, PROJECT_FILE_COPY, type ProjectFile } from '@bundoc/shared/contract/project-file';
import { AppError } from '@bundoc/shared/errors';
import type { KeyService, LeasedKey } from '../kms/port.ts';
import { type Disk, SMALL_FILE_BYTES_MAX } from '../storage/embedded/disk.ts';
import type { StorePlace } from '../storage/embedded/project-loader.ts';
import type { Finding } from '../storage/embedded/verify.ts';
import { type LeasedKeys, openCipher, parseProjectFile } from './project-file.ts';

/** What a tool that works on projects without the service needs. */
export interface ProjectPlace {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  readonly disk: Disk;
  readonly keys: Pick<KeyService, 'exportKey'>;
}

export interface ReadProject {
  readonly file: ProjectFile;
  readonly place: StorePlace;
  /** Which of the two files it was read from. */
  readonly from: typeof PROJECT_FILE | typeof PROJECT_FILE_COPY;
  /** The bytes of that file. */
  readonly content: Buffer;
  /** What is wrong with either of the two. */
  readonly findings: readonly Finding[];
}

/**
 * Opens what says what a project is, by `project.json`, or by its copy where that is missing or damaged. Changes nothing.
 *
 * @throws AppError what the key service threw (`KEY_NOT_FOUND` for a missing key); ProjectFilesUnreadable when neither
 * of the two will do.
 */
export async function readProject({ project, directory, disk, keys }: ProjectPlace): Promise<ReadProject> {
  const leased = leasing(project, keys);
  // A missing key is told before anything else.
  await keys.exportKey(dekNameOf(project));
  const findings: Finding[] = [];
  let read: Omit<ReadProject, 'findings'> | undefined;
  let failure: unknown;
  for (const name of [PROJECT_FILE, PROJECT_FILE_COPY] as const) {
    try {
      const content = await disk.read(join(directory, name), SMALL_FILE_BYTES_MAX);
      if (content === undefined) {
        findings.push({ part: name, problem: 'the file is missing' });
        continue;
      }
      const file = parseProjectFile(project, content);
      const cipher = openCipher(file, await leased(file));
      read ??= { file, content, from: name, place: { project, directory, disk, cipher } };
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      failure ??= error;
      const problem =
        error.code === 'key_mismatch'
          ? 'is of another key than BunKMS has'
          : 'is no project file of this project';
      findings.push({ part: name, problem });
    }
  }
  if (read === undefined) throw new ProjectFilesUnreadable(findings, failure);
  return { ...read, findings };
}

/** Fetches the versions of the key that a project file lists, the latest first, each once. */
export function leasing(
  project: string,
  keys: ProjectPlace['keys'],
): (file: ProjectFile) => Promise<LeasedKeys> {
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

/** Neither `project.json` nor its copy tells what the project is. */
export class ProjectFilesUnreadable extends Error {
  override readonly name = 'ProjectFilesUnreadable';
  readonly findings: readonly Finding[];

  constructor(findings: readonly Finding[], cause: unknown) {
    super(findings.map(({ part, problem }) => `${part}: ${problem}`).join('; '), { cause });
    this.findings = findings;
  }
}
