import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import type { Position, ProjectStore, SealedChange, StoreMetadata } from './port.ts';
import type { OnProgress } from './reports.ts';
import type { MarkSetAside } from './set-aside.ts';
import type { StorageIdentity } from './storage-file.ts';

// What moves, backups and restores need of an engine. Sealed bytes stay as they are.

export type ReadSealedChanges = ProjectStore['sealedChanges'];

/** What a project holds, in documents and their sealed bytes: alike at both ends. */
export type MoveCounts = Pick<StoreMetadata, 'documents' | 'bytes'>;

/** What a project has beside its documents and deletions, once nobody writes any more. */
export interface FinalState extends Omit<StoreMetadata, 'size'> {
  /** The text of its project file. */
  readonly file: string;
}

/** A source while nobody can write to it. */
export interface FencedSource {
  readonly page: ReadSealedChanges;
  last(): Promise<FinalState>;
}

/** Where a project is, and in use. */
export interface MoveSource {
  /** Of all versions of the key that the latest page needed. */
  readonly cipher: ProjectCipher;
  /** Documents and deletions, about, and the place of the latest commit. */
  extent(): Promise<{ readonly size: number; readonly lastSeq: Position }>;
  /** Opens each document that it reads. */
  readonly page: ReadSealedChanges;
  /**
   * Runs `action` while nobody can write; then, in its place, puts the mark there, durably: with it, every
   * request is refused. If `action` throws, nothing has changed.
   */
  fence(action: (fenced: FencedSource) => Promise<void>, mark: () => string): Promise<void>;
  /** Takes the mark away: the project is in use again. Changes nothing where another mark stands, or none. */
  stay(mark: string): Promise<void>;
  /** The mark that stands there. */
  mark(): Promise<string | undefined>;
  /** Takes the content away and leaves `mark`. May be done again. */
  leave(mark: string, move: string): Promise<void>;
}

/** Where a project is brought to: under a mark, with which nobody sees it there. */
export interface MoveTarget {
  /**
   * Puts the mark there and makes an empty place.
   *
   * @param isOurs whether a mark there is of the same project: then what lies beside it is left over from an
   * earlier move. Any other is set aside.
   * @throws MoveFailed where there is a project.
   */
  begin(mark: string, isOurs: (mark: string) => Promise<boolean>): Promise<void>;
  /** Takes over changes, in their order, durably. */
  put(changes: readonly SealedChange[], position: Position): Promise<void>;
  /** Reads again and opens every document that was taken over behind a place. @throws MoveFailed. */
  verify(after: Position, onProgress: OnProgress): Promise<void>;
  /** Adds the rest, durably, and then the mark that says that nothing is missing. @returns what it holds. */
  finish(last: FinalState, mark: string): Promise<MoveCounts>;
  /** What is there: a project file, and a mark. */
  present(): Promise<{ readonly hasFile: boolean; readonly mark: string | undefined }>;
  /** Takes the mark away: the target has the project. */
  open(): Promise<void>;
  /** Removes what was copied, and then the mark. */
  discard(): Promise<void>;
}

/** A storage that projects are brought to, open for one move. */
export interface OpenMoveTarget extends AsyncDisposable {
  readonly identity: StorageIdentity;
  /** @param cipher of the versions of the key that the project has now. */
  project(project: string, cipher: () => ProjectCipher, onSetAside: (mark: MarkSetAside) => void): MoveTarget;
}

/** A project in use, as a move out of its storage needs it. */
export interface UsedProject extends Disposable {
  readonly cipher: ProjectCipher;
  readonly file: ProjectFile;
  readonly store: Pick<ProjectStore, 'sealedChanges' | 'checkpoint' | 'movable'>;
}

/** The projects that this process has in use. */
export interface UsedProjects<P extends UsedProject = UsedProject> {
  acquire(project: string, mode: 'existing'): Promise<P | undefined>;
  /** Runs `action` while nobody opens the project, which `close` takes out of use. */
  exclusively<T>(project: string, action: (close: () => Promise<void>) => Promise<T>): Promise<T>;
}

/** What the key tells beside. */
export interface BackupEnd {
  /** Up to which commit it is the project. */
  readonly lastSeq: number;
  readonly purgedSeq: number;
  /** Documents and deletions that it holds; of one that changed while it was made, all. */
  readonly entries: number;
  /** When it was complete. */
  readonly createdMs: number;
}

/**
 * How many commits a restored project skips: anyone who follows it from a place behind the backup must not
 * take what comes next for what they have seen there.
 */
export const SKIPPED_SEQS = 2 ** 32;

/** What a project is restored of: a backup that is whole. */
export interface RestoreSource {
  readonly file: ProjectFile;
  /** Of the backup. */
  readonly id: Buffer;
  readonly cipher: ProjectCipher;
  /**
   * Reads the backup from its beginning: the changes of each block, opened; of those of one document, the
   * last counts.
   *
   * @throws BackupDamaged for whatever is not authentic.
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
