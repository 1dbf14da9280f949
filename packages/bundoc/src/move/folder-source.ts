import type { ProjectCipher } from '../cipher/project-cipher.ts';
import type { CollectionStore } from '../storage/collections/port.ts';
import type { Position, ProjectStore } from '../storage/port.ts';
import {
  type FencedSource,
  type LastOfProject,
  MoveFailed,
  type MoveSource,
  type ReadSealedChanges,
} from './move-project.ts';

/** A project in files that is open. */
export interface OpenFolder {
  readonly store: Pick<ProjectStore | CollectionStore, 'sealedChanges' | 'movable'>;
  readonly cipher: ProjectCipher;
  /** The text of its project file. */
  readonly file: string;
}

export interface FolderSourceOptions {
  /** Runs `action` with the project open: for one page, so that it may be closed in between. */
  readonly withOpen: <T>(action: (open: OpenFolder) => Promise<T>) => Promise<T>;
  /** Runs `action` with the project open while nobody writes to it, and then, before anybody can, marks it as moved. */
  readonly switchOver: (action: (open: OpenFolder) => Promise<void>) => Promise<void>;
}

/** A project in files that is moved away: of a service that runs, or with the data folder to oneself. */
export class FolderSource implements MoveSource {
  readonly #options: FolderSourceOptions;
  #cipher: ProjectCipher | undefined;

  constructor(options: FolderSourceOptions) {
    this.#options = options;
  }

  /** As of the latest page. */
  get cipher(): ProjectCipher {
    if (this.#cipher === undefined) throw new Error('nothing of the project was read yet');
    return this.#cipher;
  }

  extent(): Promise<{ size: number; lastSeq: Position }> {
    return this.#options.withOpen(async (open) => {
      this.#cipher = open.cipher;
      return movable(open).rest();
    });
  }

  readonly page: ReadSealedChanges = (after, limits) =>
    this.#options.withOpen((open) => this.#pageOf(open)(after, limits));

  switchOver(action: (fenced: FencedSource) => Promise<void>): Promise<void> {
    return this.#options.switchOver((open) => action({ page: this.#pageOf(open), last: () => lastOf(open) }));
  }

  #pageOf({ store, cipher }: OpenFolder): ReadSealedChanges {
    return async (after, limits) => {
      this.#cipher = cipher;
      return store.sealedChanges(after, limits);
    };
  }
}

function movable({ store }: OpenFolder) {
  if (store.movable === undefined) throw new MoveFailed('the project cannot be moved from this storage');
  return store.movable;
}

async function lastOf(open: OpenFolder): Promise<LastOfProject> {
  const rest = await movable(open).rest();
  return { ...rest, file: open.file, cipher: open.cipher, counts: rest };
}
