import { dirname, join } from 'node:path';
import type { LogDisk } from './ports.ts';

const FOLDER = 'stuck';
const TEMPORARY = '.tmp';

/**
 * Parts of projects whose own folders failed when their segment was to be used again:
 * `stuck/<handle>-<segment>`, carried files as elsewhere.
 */
export class StuckParts {
  readonly #disk: LogDisk;
  readonly #directory: string;
  readonly #names: Set<string>;

  private constructor(disk: LogDisk, directory: string, names: Set<string>) {
    this.#disk = disk;
    this.#directory = directory;
    this.#names = names;
  }

  /** @param directory of the log. */
  static async open(disk: LogDisk, directory: string): Promise<StuckParts> {
    const folder = join(directory, FOLDER);
    const names = (await disk.list(folder)) ?? [];
    for (const name of names) if (name.endsWith(TEMPORARY)) await disk.remove(join(folder, name));
    return new StuckParts(disk, folder, new Set(names.filter((name) => !name.endsWith(TEMPORARY))));
  }

  /** Handles that have parts here. Their projects are damaged until the parts are back in their folders. */
  get handles(): Set<string> {
    return new Set([...this.#names].map((name) => name.slice(0, name.indexOf('-'))));
  }

  /** Durable once resolved. */
  async put(file: {
    readonly handle: string;
    readonly segment: number;
    readonly content: Buffer;
  }): Promise<void> {
    await this.#disk.makeDirectory(this.#directory);
    await this.#disk.syncDirectory(dirname(this.#directory));
    const name = `${file.handle}-${file.segment}`;
    const path = join(this.#directory, name);
    await this.#disk.remove(path + TEMPORARY);
    await this.#disk.createFile(path + TEMPORARY, file.content);
    await this.#disk.rename(path + TEMPORARY, path);
    await this.#disk.syncDirectory(this.#directory);
    this.#names.add(name);
  }

  /** The carried files of a handle. */
  async read(handle: string): Promise<Buffer[]> {
    const files: Buffer[] = [];
    for (const name of this.#names) {
      if (!name.startsWith(`${handle}-`)) continue;
      const file = await this.#disk.openLogFile(join(this.#directory, name));
      try {
        files.push(await file.read(0, file.bytes));
      } finally {
        await file.close();
      }
    }
    return files;
  }

  /** The parts of a handle are durable in its own folder, or not needed any more. */
  async remove(handle: string): Promise<void> {
    for (const name of [...this.#names]) {
      if (!name.startsWith(`${handle}-`)) continue;
      await this.#disk.remove(join(this.#directory, name));
      this.#names.delete(name);
    }
  }
}
