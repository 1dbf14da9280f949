import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type {
  FencedSource,
  MoveSource,
  ReadSealedChanges,
  UsedProject,
  UsedProjects,
} from '../../moves/transfer-port.ts';
import { MoveFailed } from '../../port/errors.ts';
import type { Position, StoreMetadata } from '../../port/port.ts';
import { formatProjectFile } from '../../projects/project-file.ts';
import type { Disk } from '../disk/disk.ts';
import { readMoveMark, removeMoveMark, setMovedAside, writeMoveMark } from '../projects/moved-folder.ts';

/** The location of a project. */
export interface FolderToMove {
  readonly directory: string;
  /** The folder for its content after the move. */
  readonly keptIn: string;
  /** The folder for unfinished files, on the same file system. */
  readonly tmp: string;
  readonly disk: Disk;
  /** Drops the project from the log and memory, without its folder. */
  readonly forget: () => Promise<void>;
}

export interface FilesMoveSourceOptions {
  readonly project: string;
  readonly place: FolderToMove;
  readonly instances: UsedProjects;
}

/**
 * A project in files that moves away from the process that serves it. It is opened for one page at a time, so
 * it may be closed in between.
 */
export class FilesMoveSource implements MoveSource {
  readonly #options: FilesMoveSourceOptions;
  #cipher: ProjectCipher | undefined;

  constructor(options: FilesMoveSourceOptions) {
    this.#options = options;
  }

  get cipher(): ProjectCipher {
    if (this.#cipher === undefined) throw new Error('nothing of the project was read yet');
    return this.#cipher;
  }

  extent(): Promise<{ size: number; lastSeq: Position }> {
    return this.#withOpen(restOf);
  }

  readonly page: ReadSealedChanges = (after, limits) =>
    this.#withOpen(({ store }) => store.sealedChanges(after, limits));

  /** @throws AppError `project_not_found`; `overloaded` when its users do not leave. */
  async fence(action: (fenced: FencedSource) => Promise<void>, mark: () => string): Promise<void> {
    const { project, place, instances } = this.#options;
    using open = await this.#acquire();
    // The lease must last as long as the fence: otherwise a new instance without the fence could open.
    using _fence = await movableOf(open).fence();
    // Makes the kept folder complete without the log. It is only a backup, so a full disk does not stop the
    // move.
    await open.store.checkpoint().catch(() => undefined);
    await action({
      page: (after, limits) => open.store.sealedChanges(after, limits),
      last: async () => ({ ...(await restOf(open)), file: formatProjectFile(open.file).toString() }),
    });
    await instances.exclusively(project, async (close) => {
      open[Symbol.dispose]();
      await close();
      await writeMoveMark(place.disk, place.tmp, place.directory, mark());
    });
  }

  async stay(mark: string): Promise<void> {
    const { place, project, instances } = this.#options;
    await instances.exclusively(project, async () => {
      if ((await this.mark()) === mark) await removeMoveMark(place.disk, place.directory);
    });
  }

  mark(): Promise<string | undefined> {
    const { disk, directory } = this.#options.place;
    return readMoveMark(disk, directory);
  }

  async leave(mark: string, move: string): Promise<void> {
    const { project, place, instances } = this.#options;
    const { disk, directory, tmp, keptIn, forget } = place;
    await instances.exclusively(project, async (close) => {
      await close();
      await writeMoveMark(disk, tmp, directory, mark);
      await forget();
      await setMovedAside(disk, directory, keptIn, `${project}-${move}`);
    });
  }

  async #acquire(): Promise<UsedProject> {
    const open = await this.#options.instances.acquire(this.#options.project, 'existing');
    if (open === undefined) throw new AppError('project_not_found');
    this.#cipher = open.cipher;
    return open;
  }

  async #withOpen<T>(action: (open: UsedProject) => Promise<T>): Promise<T> {
    using open = await this.#acquire();
    return await action(open);
  }
}

function movableOf({ store }: UsedProject) {
  if (store.movable === undefined) throw new MoveFailed('the project cannot be moved from this storage');
  return store.movable;
}

function restOf(open: UsedProject): Promise<StoreMetadata> {
  return movableOf(open).metadata();
}
