import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { Batcher } from '@bundoc/shared/runtime/batcher';
import { forEachConcurrently } from '@bundoc/shared/runtime/concurrently';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import { Catalog } from './catalog/catalog.ts';
import { encodeSnapshot } from './catalog/snapshot.ts';
import { AT_ONCE, type Disk, type FileChange } from './disk/disk.ts';
import { writePart } from './disk/write-part.ts';
import { HANDLE_BYTES } from './log/layout.ts';
import type { Log } from './log/log.ts';

/** Maximum number of new folders that share their syncs. */
const BIRTHS_TOGETHER = 512;

/** A new folder on its way to its place. */
interface Birth {
  /** `project.json` and the catalog. */
  readonly files: readonly [FileChange, FileChange];
  /** The folder before it is complete. */
  readonly temporary: string;
  readonly directory: string;
  /** Whether the folder may have its name, durably or not. */
  isPlaced: boolean;
  readonly done: PromiseWithResolvers<void>;
}

export interface BirthsOptions {
  readonly disk: Disk;
  readonly log: Log;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly projectsDir: string;
  /** The project of each handle. */
  readonly projectOf: Map<string, string>;
  /** Ends a handle in the log. */
  readonly drop: (project: string, handle: string) => Promise<void>;
}

/**
 * Creates projects. The log gets an empty part of the new handle first. Then a folder with `project.json` and
 * a catalog that covers this part is made under a temporary name, synced and renamed. So the folder of a
 * project is complete whenever there is one. Projects that are created at the same time share their syncs.
 *
 * What a crash leaves at each step: docs/architecture/log.md.
 */
export class Births {
  readonly #options: BirthsOptions;
  readonly #rounds = new Batcher<Birth>({
    queue: BIRTHS_TOGETHER,
    run: (births) => this.#place(births),
    isGathering: true,
  });
  /** The sync of the names of projects; undefined when it must be repeated. */
  #named: Promise<void> | undefined;

  constructor(options: BirthsOptions) {
    this.#options = options;
  }

  /**
   * Creates a project, durably. The caller keeps others from creating or opening the project at the same
   * time, and its folder is missing or empty.
   *
   * @throws AppError of the disk or of the log. Then there is no project, or an empty one.
   */
  async create(project: string, cipher: ProjectCipher, projectFile: Buffer): Promise<void> {
    const { drop, log, projectOf, projectsDir, tmp } = this.#options;
    const handle = randomBytes(HANDLE_BYTES).toString('hex');
    const kind = { kind: 'data', keyVersion: cipher.version } as const;
    const covered = await writePart(log, { handle, project, keys: cipher }, kind);
    // It has no content that could be lost.
    log.coverTo(handle, covered);
    const temporary = join(tmp, randomBytes(12).toString('hex'));
    const head = { handle, covered, projectFile, lastSeq: 0, purgedSeq: 0, seals: [] };
    const catalog: Buffer[] = [];
    for await (const piece of encodeSnapshot(project, cipher, head, [], new Catalog())) catalog.push(piece);
    const birth: Birth = {
      files: [
        { path: join(temporary, PROJECT_FILE), content: projectFile },
        { path: join(temporary, CATALOG_FILE), content: Buffer.concat(catalog) },
      ],
      temporary,
      directory: join(projectsDir, project),
      isPlaced: false,
      done: Promise.withResolvers(),
    };
    projectOf.set(handle, project);
    this.#rounds.add(birth);
    try {
      await birth.done.promise;
    } catch (error) {
      // The log would keep a handle without a folder. If this fails, too, the next start finds it empty.
      if (!birth.isPlaced) await drop(project, handle).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Makes the names of all projects durable, unless they are. Required before a project is used: the folder
   * may come from a process that was killed, or from a creation whose last sync has failed.
   */
  ensureNamed(): Promise<void> {
    if (this.#named === undefined) {
      const { disk, projectsDir } = this.#options;
      const named = disk.syncDirectory(projectsDir);
      this.#named = named;
      named.catch(() => {
        if (this.#named === named) this.#named = undefined;
      });
    }
    return this.#named;
  }

  /** Resolves once no project is being created. */
  settled(): Promise<void> {
    return this.#rounds.settled();
  }

  /** Writes and syncs new folders together, and gives them their names. Never rejects. */
  async #place(births: readonly Birth[]): Promise<void> {
    const { disk, projectsDir } = this.#options;
    try {
      const outcomes = await disk.writeFiles(births.flatMap(({ files }) => files));
      const whole = births.filter(({ done }, at) => {
        const failure = outcomes[2 * at] ?? outcomes[2 * at + 1];
        if (failure !== undefined) done.reject(failure);
        return failure === undefined;
      });
      await disk.syncFiles(whole.flatMap(({ files }) => files.map(({ path }) => path)));
      await forEachConcurrently(whole, AT_ONCE, (birth) => this.#name(birth));
      // Not by `ensureNamed`: the opening of another project need not wait for it.
      await disk.syncDirectory(projectsDir).catch((error: unknown) => {
        this.#named = undefined;
        throw error;
      });
      this.#named ??= Promise.resolve();
      for (const { done } of whole) done.resolve();
    } catch (error) {
      for (const { done } of births) done.reject(error);
    } finally {
      for (const { temporary, isPlaced } of births)
        if (!isPlaced) await disk.removeTree(temporary).catch(() => undefined);
    }
  }

  async #name(birth: Birth): Promise<void> {
    const { disk } = this.#options;
    const { temporary, directory, done } = birth;
    birth.isPlaced = true;
    try {
      await disk.rename(temporary, directory);
    } catch (error) {
      // The folder has its name unless the temporary one is still there.
      birth.isPlaced = (await disk.list(temporary).catch(() => undefined)) === undefined;
      done.reject(error);
    }
  }
}
