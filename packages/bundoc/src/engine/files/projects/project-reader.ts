import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE, CATALOG_HEAD_BYTES_MAX, parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { PROJECT_FILE, type ProjectFile } from '@bundoc/shared/contract/project-file';
import type { KeyService } from '../../../kms/port.ts';
import { openCipher, parseProjectFile, SMALL_FILE_BYTES_MAX } from '../../project-file.ts';
import { leasing } from '../../project-keys.ts';
import type { Finding } from '../../reports.ts';
import type { Disk } from '../disk/disk.ts';
import {
  birthIn,
  CARRIED_FOLDER,
  PartsDamaged,
  readCarried,
  type StorePlace,
} from '../store/project-loader.ts';
import type { ViewedLog } from '../store/viewed-log.ts';

/** What a tool that works on projects without the service needs. */
export interface ProjectPlace {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  /** A folder for what is being written, on the same file system. */
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
  /** Where it was read from. */
  readonly from: string;
  /** What is wrong with `project.json`, and with the copies that were looked at instead. */
  readonly findings: readonly Finding[];
}

/**
 * Opens what says what a project is, by `project.json`, or, where that is missing or damaged, by its copy in
 * the catalog, or in the log. Changes nothing.
 *
 * @throws AppError what the key service threw (`key_not_found` for a missing key); ProjectFilesUnreadable
 * when none of them will do.
 */
export async function readProject({
  project,
  directory,
  disk,
  keys,
  log,
}: ProjectPlace): Promise<ReadProject> {
  const leased = leasing(project, keys);
  // A missing key is reported before anything else.
  await keys.exportKey(dekNameOf(project));
  const findings: Finding[] = [];
  let failure: unknown;
  const sources: readonly [name: string, read: () => Promise<Buffer | undefined>][] = [
    [PROJECT_FILE, () => disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX)],
    [`the copy of ${PROJECT_FILE} in ${CATALOG_FILE}`, () => copyInCatalog(disk, directory)],
    [`the copy of ${PROJECT_FILE} in the log`, async () => log.births.get(project)?.projectFile],
    [`the copy of ${PROJECT_FILE} in ${CARRIED_FOLDER}`, () => copyInBirth(disk, directory)],
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
      // A copy need not be in each of the places.
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

/** Of a project whose birth was carried out of the log before it had a catalog. */
async function copyInBirth(disk: Disk, directory: string): Promise<Buffer | undefined> {
  try {
    return birthIn(await readCarried(disk, directory))?.projectFile;
  } catch (error) {
    // Said when the parts are looked at.
    if (error instanceof PartsDamaged) return undefined;
    throw error;
  }
}

/** Neither `project.json` nor a copy of it tells what the project is. */
export class ProjectFilesUnreadable extends Error {
  override readonly name = 'ProjectFilesUnreadable';
  readonly findings: readonly Finding[];

  constructor(findings: readonly Finding[], cause: unknown) {
    super(findings.map(({ part, problem }) => `${part}: ${problem}`).join('; '), { cause });
    this.findings = findings;
  }
}
