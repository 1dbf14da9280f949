import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import type { LeasedKey } from '../kms/port.ts';
import type { LeasedKeys } from './project-file.ts';

/** What a storage of rows says of a project in the clear. */
export interface FoundHead {
  /** Of the last commit. */
  readonly seq: number;
  readonly indexVersion: number;
  /** Documents by version of the key; undefined where there are too many versions. */
  readonly documents: ReadonlyMap<number, number> | undefined;
  /** Tokens of collections in hex; undefined where there are too many. */
  readonly collections: ReadonlySet<string> | undefined;
}

/** What the storage and the key service together say a project is. */
export interface OpenedProject {
  readonly file: ProjectFile;
  /** All versions of the key that the project uses, the current one first. */
  readonly keys: LeasedKeys;
  readonly cipher: ProjectCipher;
  /**
   * Names in its folder, where it has one, as they were found: to look for what is not there costs more than
   * to read what is.
   */
  readonly entries?: readonly string[];
  /** What its rows said, where it has some, in the trip that read the file. */
  readonly head?: FoundHead | undefined;
}

/** What a project holds, as far as that stands in the clear. Nothing authenticates it. */
export interface ProjectExtent {
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
  readonly keyVersion: number;
}

/**
 * Where it is kept what a project is: folders, or rows. A key is minted only for a project without content,
 * and nothing is ever written under a second key.
 *
 * Errors of every method: `project_damaged`, `key_missing`, `key_mismatch`, `project_unclaimed` for content
 * whose key nobody holds, those of the key service and of the storage; of opening and of deleting,
 * `project_moving` and `project_elsewhere` where it is being brought to, or was moved away from.
 *
 * A mark by which a project was deleted refuses nothing unless the key service confirms it: otherwise it is
 * set aside, and the project opens.
 */
export interface Projects extends DeletableProjects {
  /** @returns undefined when there is none; nothing was made and no key was asked for. */
  open(project: string): Promise<OpenedProject | undefined>;

  /** Makes a project, or opens it when it exists. Once resolved, it is durable. */
  openOrCreate(project: string): Promise<OpenedProject>;

  /**
   * Ids of projects, in the order of their characters. Whether a project can be opened is not looked at.
   *
   * @param after the last id of the page before; empty for the first.
   * @param only the projects that are asked about; all by default.
   * @param prefix how the ids begin; empty for all.
   */
  names(after: string, limit: number, only?: readonly string[], prefix?: string): Promise<readonly string[]>;

  /**
   * What the storage says without a key of projects that {@link names} has named. Those that it says
   * nothing of are left out.
   */
  extents(projects: readonly string[]): Promise<ReadonlyMap<string, ProjectExtent>>;

  /** Keeps the present wrappings of the key's versions, which a rebuild of a lost key store needs. */
  keepWrappings(project: string, file: ProjectFile, keys: readonly LeasedKey[]): Promise<ProjectFile>;
}

/**
 * The storage's part of a deletion. Callers see to its order, and that nobody opens the project meanwhile.
 */
export interface DeletableProjects {
  /**
   * Whether there is content, be it damaged. The mark of a deletion is none; that of a move is some, once
   * BunKMS names this storage as the holder of the key.
   */
  exists(project: string): Promise<boolean>;

  /**
   * What a mark says of the deletion of a project, if there is one that can be read. It informs, and decides
   * nothing.
   */
  deletionOf(project: string): Promise<DeletionMark | undefined>;

  /**
   * Removes everything of a project whose key is destroyed, and leaves the mark, durably. May be done again.
   */
  remove(project: string, mark: DeletionMark): Promise<void>;
}
