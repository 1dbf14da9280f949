import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import type { StorageIdentity } from '../identity/storage-file.ts';
import type { Position, ProjectStore, SealedChange, StoreMetadata } from '../port/port.ts';
import type { OnProgress } from '../port/reports.ts';
import type { MarkSetAside } from './set-aside.ts';

// What moves, backups and restores need from an engine. Sealed bytes stay unchanged.

export type ReadSealedChanges = ProjectStore['sealedChanges'];

/** The numbers of documents and of their sealed bytes, which must be equal at both ends. */
export type MoveCounts = Pick<StoreMetadata, 'documents' | 'bytes'>;

/** The part of a project besides its documents and deletions, after the last write. */
export interface FinalState extends Omit<StoreMetadata, 'size'> {
  /** The text of its project file. */
  readonly file: string;
}

/** A source to which no one can write. */
export interface FencedSource {
  readonly page: ReadSealedChanges;
  last(): Promise<FinalState>;
}

/** The source of a move, while the project is in use. */
export interface MoveSource {
  /** The cipher of all key versions that the latest page needed. */
  readonly cipher: ProjectCipher;
  /** The approximate number of documents and deletions, and the position of the latest commit. */
  extent(): Promise<{ readonly size: number; readonly lastSeq: Position }>;
  /** Decrypts each document that it reads. */
  readonly page: ReadSealedChanges;
  /**
   * Runs `action` while no one can write, then durably writes the mark, which blocks every request. If
   * `action` throws, nothing has changed.
   */
  fence(action: (fenced: FencedSource) => Promise<void>, mark: () => string): Promise<void>;
  /** Removes the mark, so that the project is in use again. Does nothing for another mark or none. */
  stay(mark: string): Promise<void>;
  /** The current mark. */
  mark(): Promise<string | undefined>;
  /** Removes the content and leaves `mark`. Idempotent. */
  leave(mark: string, move: string): Promise<void>;
}

/** The target of a move. While it has a mark, the project is invisible there. */
export interface MoveTarget {
  /**
   * Writes the mark and creates an empty place.
   *
   * @param isOurs whether an existing mark belongs to the same project. Content beside such a mark is left
   *   from an earlier move; any other mark is set aside.
   * @throws MoveFailed where there is a project.
   */
  begin(mark: string, isOurs: (mark: string) => Promise<boolean>): Promise<void>;
  /** Adds changes in order, durably. */
  put(changes: readonly SealedChange[], position: Position): Promise<void>;
  /** Reads and decrypts every document that was added after a position. @throws MoveFailed. */
  verify(after: Position, onProgress: OnProgress): Promise<void>;
  /** Adds the rest durably, then the mark for a complete project. @returns the project's totals. */
  finish(last: FinalState, mark: string): Promise<MoveCounts>;
  /** Whether there is a project file, and the mark. */
  present(): Promise<{ readonly hasFile: boolean; readonly mark: string | undefined }>;
  /** Removes the mark: the target has the project. */
  open(): Promise<void>;
  /** Removes the copy, then the mark. */
  discard(): Promise<void>;
}

/** A storage that projects move to, open for one move. */
export interface OpenMoveTarget extends AsyncDisposable {
  readonly identity: StorageIdentity;
  /** @param cipher returns that of the project's current key versions. */
  project(project: string, cipher: () => ProjectCipher, onSetAside: (mark: MarkSetAside) => void): MoveTarget;
}

/** A project in use, as a move out of its storage needs it. */
export interface UsedProject extends Disposable {
  readonly cipher: ProjectCipher;
  readonly file: ProjectFile;
  readonly store: Pick<ProjectStore, 'sealedChanges' | 'checkpoint' | 'movable'>;
}

/** The projects that this process has in use. */
export interface UsedProjects {
  acquire(project: string, mode: 'existing'): Promise<UsedProject | undefined>;
  /** Runs `action` while no one can open the project; `close` closes it. */
  exclusively<T>(project: string, action: (close: () => Promise<void>) => Promise<T>): Promise<T>;
}

/** The sealed end of a backup. */
export interface BackupEnd {
  /** The position of the last commit in it. */
  readonly lastSeq: number;
  readonly purgedSeq: number;
  /** Number of documents and deletions in it; a document that changed during the backup may have several. */
  readonly entries: number;
  /** The time of its completion. */
  readonly createdMs: number;
}

/** The source of a restored project: a complete backup. */
export interface RestoreSource {
  readonly file: ProjectFile;
  /** The id of the backup. */
  readonly id: Buffer;
  readonly cipher: ProjectCipher;
  /**
   * Reads the backup from its start and returns the decrypted changes of each block. The last change of a
   * document wins.
   *
   * @throws BackupDamaged for anything that is not authentic.
   */
  readonly changes: () => AsyncGenerator<readonly SealedChange[], BackupEnd, void>;
  readonly onProgress?: (entries: number) => void;
}

/** Takes the changes of each block. */
export async function takeAll(
  blocks: ReturnType<RestoreSource['changes']>,
  take: (changes: readonly SealedChange[]) => Promise<void>,
): Promise<BackupEnd> {
  for (;;) {
    const { done, value } = await blocks.next();
    if (done === true) return value;
    await take(value);
  }
}
