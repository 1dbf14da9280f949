import { dirname, join } from 'node:path';
import { isCarriedUpTo } from './carried-file.ts';
import type { FramePlace } from './layout.ts';
import type { StuckFiles } from './log-api.ts';
import type { LogDisk, ReadableLogDisk } from './ports.ts';

export const STUCK_FOLDER = 'stuck';
const TEMPORARY = '.tmp';

const handleOf = (name: string) => name.slice(0, name.indexOf('-'));

/** The carried files of the log's own folder, `stuck/<handle>-<segment>`. */
class StuckFolder implements StuckFiles {
  readonly #disk: ReadableLogDisk;
  readonly directory: string;
  readonly names: Set<string>;

  constructor(disk: ReadableLogDisk, directory: string, names: readonly string[]) {
    this.#disk = disk;
    this.directory = directory;
    this.names = new Set(names.filter((name) => !name.endsWith(TEMPORARY)));
  }

  get handles(): Set<string> {
    return new Set([...this.names].map(handleOf));
  }

  namesOf(handle: string): string[] {
    return [...this.names].filter((name) => handleOf(name) === handle);
  }

  async read(handle: string): Promise<Buffer[]> {
    const files: Buffer[] = [];
    for (const name of this.namesOf(handle)) {
      const file = await this.#disk.openLogFile(join(this.directory, name));
      try {
        files.push(await file.read(0, file.bytes));
      } finally {
        await file.close();
      }
    }
    return files;
  }
}

/**
 * {@link StuckParts}, read only.
 *
 * @param directory of the log, which need not exist.
 */
export async function listStuck(disk: ReadableLogDisk, directory: string): Promise<StuckFiles> {
  const folder = join(directory, STUCK_FOLDER);
  return new StuckFolder(disk, folder, (await disk.list(folder)) ?? []);
}

/**
 * Parts of projects whose folders failed when their segment was freed: carried files with the name
 * `stuck/<handle>-<segment>`.
 */
export class StuckParts implements StuckFiles {
  readonly #disk: LogDisk;
  readonly #folder: StuckFolder;

  private constructor(disk: LogDisk, folder: StuckFolder) {
    this.#disk = disk;
    this.#folder = folder;
  }

  /** @param directory of the log. */
  static async open(disk: LogDisk, directory: string): Promise<StuckParts> {
    const folder = join(directory, STUCK_FOLDER);
    const names = (await disk.list(folder)) ?? [];
    for (const name of names) if (name.endsWith(TEMPORARY)) await disk.remove(join(folder, name));
    return new StuckParts(disk, new StuckFolder(disk, folder, names));
  }

  get handles(): Set<string> {
    return this.#folder.handles;
  }

  read(handle: string): Promise<Buffer[]> {
    return this.#folder.read(handle);
  }

  /** Durable once resolved. */
  async put(file: {
    readonly handle: string;
    readonly segment: number;
    readonly content: Buffer;
  }): Promise<void> {
    const { directory, names } = this.#folder;
    await this.#disk.makeDirectory(directory);
    await this.#disk.syncDirectory(dirname(directory));
    const name = `${file.handle}-${file.segment}`;
    const path = join(directory, name);
    await this.#disk.remove(path + TEMPORARY);
    await this.#disk.createFile(path + TEMPORARY, file.content);
    await this.#disk.rename(path + TEMPORARY, path);
    await this.#disk.syncDirectory(directory);
    names.add(name);
  }

  /** Removes the files of a handle whose parts a snapshot covers. */
  async removeUpTo(handle: string, covered: FramePlace): Promise<void> {
    const { directory, names } = this.#folder;
    for (const name of this.#folder.namesOf(handle)) {
      // A concurrent call may have removed it.
      if (!names.has(name)) continue;
      const file = await this.#disk.openLogFile(join(directory, name));
      const content = await file.read(0, file.bytes).finally(() => file.close());
      if (isCarriedUpTo(content, covered)) await this.#removeOne(name);
    }
  }

  /** Removes the files of a handle whose parts are durable elsewhere or no longer needed. */
  async remove(handle: string): Promise<void> {
    for (const name of this.#folder.namesOf(handle)) await this.#removeOne(name);
  }

  async #removeOne(name: string): Promise<void> {
    const { directory, names } = this.#folder;
    // Removes the name first, so that no other call opens the file.
    names.delete(name);
    try {
      await this.#disk.remove(join(directory, name));
    } catch (error) {
      names.add(name);
      throw error;
    }
  }
}
