import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import {
  CATALOG_FILE,
  CATALOG_HEAD_BYTES_MAX,
  type CatalogHead,
  parseCatalogHead,
} from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { SMALL_FILE_BYTES_MAX } from '../../projects/project-file.ts';
import { type Disk, LARGE_FILE_BYTES_MAX, type ReadableFile } from '../disk/disk.ts';
import { DOCS_FOLDER } from '../documents/document-files.ts';
import { LOG_FOLDER } from '../log/log-api.ts';
import { STUCK_FOLDER } from '../log/stuck-parts.ts';
import { CARRIED_BYTES_MAX, CARRIED_FOLDER } from '../store/project-loader.ts';
import { type ArchiveRecord, SMALL_FILES, type SmallFile } from './object.ts';

/** The part of a disk that only reads. */
export type ReadingDisk = Pick<Disk, 'list' | 'read' | 'openToRead'>;

/** Files are read in pieces of this length, so that a large one is never completely in memory. */
const PIECE_BYTES = 1_048_576;
/** Offset of the handle in a carried file. */
const CARRIED_HANDLE = 24;
const HANDLE_BYTES = 8;
const DOCUMENT_FILE = /^[0-9a-f]{32}$/;
const CARRIED_FILE = /^[1-9][0-9]{0,15}$/;
/** How often a base begins again because the project was replaced while it was read. */
const TRIES_MAX = 3;

/** Reads folders of projects while they are written to, without any key. */
export class BaseReader {
  readonly #disk: ReadingDisk;
  readonly #projectsDir: string;
  readonly #stuckDir: string;

  constructor(disk: ReadingDisk, dataDir: string, projectsDir: string) {
    this.#disk = disk;
    this.#projectsDir = projectsDir;
    this.#stuckDir = join(dataDir, LOG_FOLDER, STUCK_FOLDER);
  }

  /** The names of all folders that may be those of projects. */
  async projects(): Promise<readonly string[]> {
    const names = (await this.#disk.list(this.#projectsDir)) ?? [];
    return names.filter((name) => projectIdSchema.safeParse(name).data === name);
  }

  /** Names in the folder of a project; empty when there is none, or it is no folder. */
  async names(project: string): Promise<readonly string[]> {
    return (await absentIfDamaged(this.#disk.list(join(this.#projectsDir, project)))) ?? [];
  }

  /** The head of a project's catalog; undefined when it has no readable one. */
  async head(project: string): Promise<CatalogHead | undefined> {
    using file = await this.#openCatalog(project);
    return file && (await headOf(file));
  }

  async smallFiles(project: string): Promise<ArchiveRecord> {
    const files: SmallFile[] = [];
    for await (const file of this.#small(project)) files.push(file);
    return { kind: 'small files', project, files };
  }

  /**
   * A copy of a project's folder. The order of its parts makes it complete together with the log: what was
   * carried out of the log before the catalog was written comes first; documents that are written after the
   * catalog are in the log, too.
   *
   * @param onHead called with the head of the catalog that is read.
   */
  async *base(
    project: string,
    inRound: boolean,
    onHead: (head: CatalogHead | undefined) => void,
  ): AsyncGenerator<ArchiveRecord> {
    for (let tries = 1; ; tries++) {
      const before = await this.head(project);
      yield { kind: 'base', project, handle: before?.handle, inRound };
      yield* this.#stuck(before?.handle);
      yield* this.#carried(project, before?.handle);
      using file = await this.#openCatalog(project);
      const head = file && (await headOf(file));
      if (head?.handle !== before?.handle && tries < TRIES_MAX) continue;
      onHead(head);
      if (file !== undefined) yield* piecesOf(CATALOG_FILE, file);
      yield* this.#documents(project);
      for await (const { name, bytes } of this.#small(project))
        yield { kind: 'file', name, offset: 0, bytes };
      yield { kind: 'end' };
      return;
    }
  }

  async *#small(project: string): AsyncGenerator<SmallFile> {
    const names = await this.names(project);
    for (const name of SMALL_FILES) {
      if (!names.includes(name)) continue;
      const path = join(this.#projectsDir, project, name);
      const bytes = await absentIfDamaged(this.#disk.read(path, SMALL_FILE_BYTES_MAX));
      if (bytes !== undefined) yield { name, bytes };
    }
  }

  async *#carried(project: string, handle: string | undefined): AsyncGenerator<ArchiveRecord> {
    const directory = join(this.#projectsDir, project, CARRIED_FOLDER);
    for (const name of (await absentIfDamaged(this.#disk.list(directory))) ?? []) {
      if (!CARRIED_FILE.test(name)) continue;
      using file = await absentIfDamaged(this.#disk.openToRead(join(directory, name), CARRIED_BYTES_MAX));
      if (file === undefined) continue;
      const of = Buffer.alloc(HANDLE_BYTES);
      await file.readInto(of, CARRIED_HANDLE);
      if (of.toString('hex') === handle) yield* piecesOf(`${CARRIED_FOLDER}/${name}`, file);
    }
  }

  /** Carried parts that are in the folder of the log, since the project's folder had failed. */
  async *#stuck(handle: string | undefined): AsyncGenerator<ArchiveRecord> {
    for (const name of (await absentIfDamaged(this.#disk.list(this.#stuckDir))) ?? []) {
      const [of, segment = ''] = name.split('-');
      if (of !== handle || !CARRIED_FILE.test(segment)) continue;
      const path = join(this.#stuckDir, name);
      using file = await absentIfDamaged(this.#disk.openToRead(path, CARRIED_BYTES_MAX));
      if (file !== undefined) yield* piecesOf(`${CARRIED_FOLDER}/${segment}-stuck`, file);
    }
  }

  async *#documents(project: string): AsyncGenerator<ArchiveRecord> {
    const directory = join(this.#projectsDir, project, DOCS_FOLDER);
    for (const name of (await absentIfDamaged(this.#disk.list(directory))) ?? []) {
      if (!DOCUMENT_FILE.test(name)) continue;
      using file = await absentIfDamaged(this.#disk.openToRead(join(directory, name), LARGE_FILE_BYTES_MAX));
      if (file !== undefined) yield* piecesOf(`${DOCS_FOLDER}/${name}`, file);
    }
  }

  #openCatalog(project: string): Promise<ReadableFile | undefined> {
    const path = join(this.#projectsDir, project, CATALOG_FILE);
    return absentIfDamaged(this.#disk.openToRead(path, LARGE_FILE_BYTES_MAX));
  }
}

async function headOf(file: ReadableFile): Promise<CatalogHead | undefined> {
  const start = Buffer.alloc(Math.min(file.bytes, CATALOG_HEAD_BYTES_MAX));
  const read = await file.readInto(start, 0);
  return parseCatalogHead(start.subarray(0, read));
}

/** The pieces of a file, at least one. */
async function* piecesOf(name: string, file: ReadableFile): AsyncGenerator<ArchiveRecord> {
  let offset = 0;
  do {
    const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, file.bytes - offset));
    const read = await file.readInto(piece, offset);
    yield { kind: 'file', name, offset, bytes: piece.subarray(0, read) };
    offset += read;
    if (read < piece.length) return;
  } while (offset < file.bytes);
}

/** An entry that is no regular file or folder is damage of that project: its base goes without it. */
async function absentIfDamaged<T>(reading: Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  }
}
