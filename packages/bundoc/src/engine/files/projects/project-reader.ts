import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE, CATALOG_HEAD_BYTES_MAX, parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { PROJECT_FILE, type ProjectFile } from '@bundoc/shared/contract/project-file';
import type { KeyService } from '../../../kms/port.ts';
import type { Finding } from '../../port/reports.ts';
import { openCipher, parseProjectFile, SMALL_FILE_BYTES_MAX } from '../../projects/project-file.ts';
import { leasing } from '../../projects/project-keys.ts';
import type { Disk } from '../disk/disk.ts';
import type { StorePlace } from '../store/project-loader.ts';
import type { ViewedLog } from '../store/viewed-log.ts';

/** What a tool needs to work on a project without the service. */
export interface ProjectPlace {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly disk: Disk;
  readonly keys: Pick<KeyService, 'exportKey'>;
  readonly log: ViewedLog;
}

export interface ReadProject {
  readonly file: ProjectFile;
  readonly place: StorePlace;
  /** The text of `project.json`. */
  readonly content: Buffer;
  /** The source of the text. */
  readonly from: string;
  /** The faults of `project.json`, and of the copies that were tried instead. */
  readonly findings: readonly Finding[];
}

/**
 * Opens a project's metadata from `project.json`. If that is missing or damaged, it uses the copy in the
 * catalog. Changes nothing.
 *
 * @throws AppError the error of the key service (`key_not_found` for a missing key); ProjectFilesUnreadable
 *   when no copy is usable.
 */
export async function readProject({
  project,
  directory,
  disk,
  keys,
  log,
}: ProjectPlace): Promise<ReadProject> {
  const leased = leasing(project, keys);
  // Reports a missing key before anything else.
  await keys.exportKey(dekNameOf(project));
  const findings: Finding[] = [];
  let failure: unknown;
  const sources: readonly [name: string, read: () => Promise<Buffer | undefined>][] = [
    [PROJECT_FILE, () => disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX)],
    [`the copy of ${PROJECT_FILE} in ${CATALOG_FILE}`, () => copyInCatalog(disk, directory)],
  ];
  for (const [name, readOne] of sources) {
    try {
      const content = await readOne();
      if (content === undefined) {
        findings.push({ part: name, problem: MISSING });
        continue;
      }
      const file = parseProjectFile(project, content);
      const cipher = openCipher(file, await leased(file));
      // Not every place needs a copy, so a missing one is no fault.
      const wrong = findings.filter(({ part, problem }) => part === PROJECT_FILE || problem !== MISSING);
      return { file, content, from: name, place: { project, directory, disk, cipher, log }, findings: wrong };
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
  throw new ProjectFilesUnreadable(findings, failure);
}

const MISSING = 'is missing';

async function copyInCatalog(disk: Disk, directory: string): Promise<Buffer | undefined> {
  const start = await disk.readStart(join(directory, CATALOG_FILE), CATALOG_HEAD_BYTES_MAX);
  return start && parseCatalogHead(start)?.projectFile;
}

/** Neither `project.json` nor a copy of it is usable. */
export class ProjectFilesUnreadable extends Error {
  override readonly name = 'ProjectFilesUnreadable';
  readonly findings: readonly Finding[];

  constructor(findings: readonly Finding[], cause: unknown) {
    super(findings.map(({ part, problem }) => `${part}: ${problem}`).join('; '), { cause });
    this.findings = findings;
  }
}
