import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import type { LeasedKey } from '../../kms/port.ts';
import type { LeasedKeys } from './project-file.ts';

/** What PostgreSQL shows of a project in the clear. */
export interface FoundHead {
  /** Of the last commit. */
  readonly seq: number;
  readonly indexVersion: number;
  /** Documents by version of the key; undefined where there are too many versions. */
  readonly documents: ReadonlyMap<number, number> | undefined;
  /** Tokens of collections in hex; undefined where there are too many. */
  readonly collections: ReadonlySet<string> | undefined;
}

/** The rows' values at a moment, and when that was. */
export interface DatedHead extends FoundHead {
  /** Monotonic. */
  readonly asOfMs: number;
}

/** A project, as the storage and the key service together describe it. */
export interface OpenedProject {
  readonly file: ProjectFile;
  /** All versions of the key that the project uses, the current one first. */
  readonly keys: LeasedKeys;
  readonly cipher: ProjectCipher;
  /**
   * Names found in its folder, if it has one. Looking for absent files costs more than listing existing ones.
   */
  readonly entries?: readonly string[];
  /** The values of its rows, if it has rows, from the round trip that read the file. */
  readonly head?: DatedHead | undefined;
}

/** Figures of a project that are stored in the clear. Nothing authenticates them. */
export interface ProjectExtent {
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
  readonly keyVersion: number;
  /**
   * Differs after every commit and after every document that was re-sealed. Equal values show that neither
   * happened; it may also differ without them.
   */
  readonly lastChange: string;
}

/**
 * The projects of a storage, in folders or rows. A key is created only for a project without content, and
 * nothing is ever written under a second key.
 *
 * Errors of every method: `project_damaged`, `key_missing`, `key_mismatch`, `project_unclaimed` for content
 * whose key no storage holds, and those of the key service and of the storage. Opening and deleting also fail
 * with `project_moving` while a move is in progress, and with `project_elsewhere` after one.
 *
 * A marker of a deletion has no effect unless the key service confirms it. Otherwise it is set aside, and the
 * project opens.
 */
export interface Projects extends DeletableProjects {
  /**
   * @param beforeOutside called before an outside key of a customer is asked: that may take long.
   * @returns undefined when there is no such project. Then nothing is created and no key is requested.
   */
  open(project: string, beforeOutside?: () => void): Promise<OpenedProject | undefined>;

  /** Creates a project, or opens an existing one. When it resolves, the project is durable. */
  openOrCreate(project: string, beforeOutside?: () => void): Promise<OpenedProject>;

  /**
   * Ids of projects, in the order of their characters. Does not check whether a project can be opened.
   *
   * @param after the last id of the page before; empty for the first.
   * @param only the requested projects; all by default.
   * @param prefix how the ids begin; empty for all.
   */
  names(after: string, limit: number, only?: readonly string[], prefix?: string): Promise<readonly string[]>;

  /**
   * Figures that need no key, of projects that {@link names} returned. Projects without figures are left out.
   */
  extents(projects: readonly string[]): Promise<ReadonlyMap<string, ProjectExtent>>;

  /** Stores the current wrappings of the key's versions, which the rebuild of a lost key store needs. */
  keepWrappings(project: string, file: ProjectFile, keys: readonly LeasedKey[]): Promise<ProjectFile>;
}

/**
 * The storage's part of a deletion. Callers ensure the order, and that nobody opens the project meanwhile.
 */
export interface DeletableProjects {
  /**
   * Whether there is content, even if it is damaged. The marker of a deletion is not content. That of a move
   * is, once BunKMS names this storage as the holder of the key.
   */
  exists(project: string): Promise<boolean>;

  /**
   * The content of a readable marker of a deletion, if there is one. It informs, and decides nothing.
   */
  deletionOf(project: string): Promise<DeletionMark | undefined>;

  /**
   * Removes all content of a project whose key is destroyed, and durably leaves the marker. Idempotent.
   */
  remove(project: string, mark: DeletionMark): Promise<void>;
}
