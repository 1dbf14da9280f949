import { type FileHandle, mkdir, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PROJECT_FILE, PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import {
  formatStorageFile,
  parseStorageFile,
  STORAGE_FILE,
  type StorageFile,
  withoutGeneration,
} from '../../identity/storage-file.ts';
import { TMP_FOLDER } from '../disk/disk.ts';
import { BLOCK_BYTES } from '../log/layout.ts';
import { LOG_FOLDER } from '../log/log-api.ts';
import { decodeHeader, reviveIndex, setFirstLive } from '../log/segment-header.ts';
import { ArchiveDamaged, type ArchiveRecord, SMALL_FILES, type SmallFile } from './object.ts';

type ArchivedSegment = Extract<ArchiveRecord, { kind: 'segment' }>;

const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const SEGMENT_NAME_DIGITS = 8;
/** Free segments that a restored log begins with, so that it can be written to before any is freed. */
const FREE_SEGMENTS = 4;

/** Writes the data folder that a restore makes. Nothing is durable before {@link finish}. */
export class RestoredFolder {
  readonly #to: string;
  readonly #segmentBytes: number;
  readonly #folders = new Set<string>();
  /** The base in progress. */
  #base: { readonly project: string } | undefined;
  #segment: string | undefined;
  #segments = 0;
  /** The current segment, and the block of its first frame. */
  #number = 0;
  #firstFrame = 0;
  #storageFile: Buffer | undefined;

  /** @param to an empty folder. */
  constructor(to: string, segmentBytes: number) {
    this.#to = to;
    this.#segmentBytes = segmentBytes;
  }

  /** A base begins; the one before counts for nothing unless it has ended. */
  async beginBase(project: string): Promise<void> {
    await this.dropBase();
    this.#base = { project };
    await this.#makeFolder(this.#staging);
  }

  async dropBase(): Promise<void> {
    this.#base = undefined;
    await this.#remove(this.#staging);
  }

  get #staging(): string {
    return join(TMP_FOLDER, 'base');
  }

  /** @throws ArchiveDamaged when a piece does not follow the one before. */
  async addFile(name: string, offset: number, bytes: Buffer): Promise<void> {
    if (this.#base !== undefined) await this.#write(join(this.#staging, name), offset, bytes);
  }

  /** Puts the complete base in the place of its project. */
  async placeBase(): Promise<void> {
    if (this.#base === undefined) return;
    const path = projectPath(this.#base.project);
    await this.#makeFolder(PROJECTS_FOLDER);
    await this.#remove(path);
    await rename(join(this.#to, this.#staging), join(this.#to, path));
    this.#forgetFolders(this.#staging);
    this.#base = undefined;
  }

  /** Replaces the small files of a project, unless it has no folder. */
  async putSmallFiles(project: string, files: readonly SmallFile[]): Promise<void> {
    const path = projectPath(project);
    if ((await stat(join(this.#to, path)).catch(() => undefined)) === undefined) return;
    // It was deleted, or has moved away.
    if (!files.some(({ name }) => name === PROJECT_FILE)) await this.#remove(path);
    for (const name of SMALL_FILES) await rm(join(this.#to, path, name), { force: true });
    for (const { name, bytes } of files) await this.#write(join(path, name), 0, bytes);
  }

  async removeProject(project: string): Promise<void> {
    if (this.#base?.project === project) await this.dropBase();
    await this.#remove(projectPath(project));
  }

  /**
   * @param firstLive the first segment of the restored log.
   * @throws ArchiveDamaged for one that is not the next.
   */
  async beginSegment({ number, id, header }: ArchivedSegment, firstLive: number): Promise<void> {
    await this.#endSegment();
    const found = header.length < BLOCK_BYTES ? undefined : decodeHeader(header);
    const isNext =
      found?.number === number &&
      found.id.equals(id) &&
      number > this.#number &&
      header.length === found.firstFrame * BLOCK_BYTES &&
      header.length < this.#segmentBytes;
    if (!isNext) throw new ArchiveDamaged(`the header of segment ${number} is invalid`);
    this.#number = number;
    this.#firstFrame = found.firstFrame;
    const blocks = Buffer.from(header);
    reviveIndex(blocks, firstLive);
    const path = this.#nextSegment();
    await this.#write(path, 0, blocks);
    this.#segment = path;
  }

  async addFrame(block: number, bytes: Buffer): Promise<void> {
    const end = block * BLOCK_BYTES + bytes.length;
    if (this.#segment === undefined || block < this.#firstFrame || end > this.#segmentBytes)
      throw new ArchiveDamaged('a frame is outside of its segment');
    await using file = await open(join(this.#to, this.#segment), 'r+');
    await writeAll(file, bytes, block * BLOCK_BYTES);
  }

  get hasLog(): boolean {
    return this.#segment !== undefined;
  }

  setStorageFile(content: Buffer): void {
    this.#storageFile = content;
  }

  /**
   * Completes the folder. Its identity comes last, and without it Bundoc does not start.
   *
   * @param storageId 16 bytes.
   * @param firstLive the first segment of the log.
   * @param sync makes everything below a folder durable.
   * @throws ArchiveDamaged when there is no log or no identity.
   */
  async finish(
    storageId: Buffer,
    firstLive: number,
    sync: (directory: string) => Promise<void>,
  ): Promise<void> {
    await this.dropBase();
    const last = this.#segment;
    if (last === undefined || this.#storageFile === undefined)
      throw new ArchiveDamaged('the archive has no log, or no storage file');
    const identity = restoredIdentity(this.#storageFile, storageId);
    await this.#endSegment();
    {
      await using file = await open(join(this.#to, last), 'r+');
      const block = Buffer.alloc(BLOCK_BYTES);
      await file.read(block, 0, block.length, 0);
      setFirstLive(block, firstLive);
      await writeAll(file, block, 0);
    }
    for (let at = 0; at < FREE_SEGMENTS; at++)
      await this.#write(this.#nextSegment(), 0, Buffer.alloc(this.#segmentBytes));
    await this.#makeFolder(PROJECTS_FOLDER);
    await this.#makeFolder(TMP_FOLDER);
    await sync(this.#to);
    await this.#write(STORAGE_FILE, 0, identity);
    await sync(this.#to);
  }

  #nextSegment(): string {
    return join(LOG_FOLDER, String(this.#segments++).padStart(SEGMENT_NAME_DIGITS, '0'));
  }

  async #endSegment(): Promise<void> {
    const path = this.#segment;
    this.#segment = undefined;
    if (path !== undefined) await truncate(join(this.#to, path), this.#segmentBytes);
  }

  async #write(below: string, offset: number, bytes: Buffer): Promise<void> {
    await this.#makeFolder(dirname(below));
    await using file = await open(join(this.#to, below), offset === 0 ? 'w' : 'r+', FILE_MODE);
    if (offset > 0 && (await file.stat()).size !== offset)
      throw new ArchiveDamaged(`a piece of ${below} is missing`);
    await writeAll(file, bytes, offset);
  }

  async #makeFolder(below: string): Promise<void> {
    if (this.#folders.has(below)) return;
    await mkdir(join(this.#to, below), { recursive: true, mode: FOLDER_MODE });
    this.#folders.add(below);
  }

  async #remove(below: string): Promise<void> {
    await rm(join(this.#to, below), { recursive: true, force: true });
    this.#forgetFolders(below);
  }

  #forgetFolders(below: string): void {
    for (const folder of this.#folders)
      if (folder === below || folder.startsWith(`${below}/`)) this.#folders.delete(folder);
  }
}

/** A disk that is nearly full may take a part of the bytes without an error. */
async function writeAll(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; )
    at += (await file.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
}

/** @throws ArchiveDamaged unless it is that of the storage. Nothing lets the folder act as the storage. */
function restoredIdentity(content: Buffer, storageId: Buffer): Buffer {
  let file: StorageFile;
  try {
    file = parseStorageFile(STORAGE_FILE, content.toString());
  } catch (error) {
    throw new ArchiveDamaged('the storage file in the archive is invalid', { cause: error });
  }
  if (file.id.replaceAll('-', '') !== storageId.toString('hex'))
    throw new ArchiveDamaged('the storage file in the archive is that of another storage');
  return Buffer.from(formatStorageFile(withoutGeneration(file)));
}

function projectPath(project: string): string {
  return join(PROJECTS_FOLDER, project);
}

/** Makes every file and folder below a folder durable, one by one. */
export async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) {
      await using file = await open(path, 'r');
      await file.sync();
    }
  }
  await using folder = await open(directory, 'r');
  await folder.sync();
}
