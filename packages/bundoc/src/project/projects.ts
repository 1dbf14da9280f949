import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import type { LeasedKey } from '../kms/port.ts';
import type { LeasedKeys } from './project-file.ts';

/** What the storage and the key service together say a project is. */
export interface OpenedProject {
  readonly file: ProjectFile;
  /** All versions of the key that the project uses, the current one first. */
  readonly keys: LeasedKeys;
  readonly cipher: ProjectCipher;
}

/**
 * Where it is kept what a project is: folders, or rows. A key is minted only for a project without content, and nothing is ever written
 * under a second key.
 *
 * Errors of every method: `project_damaged`, `key_missing`, `key_mismatch`, those of the key service and of the storage.
 */
export interface Projects {
  /** @returns undefined when there is none; nothing was made and no key was asked for. */
  open(project: string): Promise<OpenedProject | undefined>;

  /** Makes a project, or opens it when it exists. Once resolved, it is durable. */
  openOrCreate(project: string): Promise<OpenedProject>;

  /**
   * Ids of projects, in the order of their characters. Whether a project can be opened is not looked at.
   *
   * @param after the last id of the page before; empty for the first.
   * @param only the projects that are asked about; all by default.
   */
  names(after: string, limit: number, only?: readonly string[]): Promise<readonly string[]>;

  /** Keeps the present wrappings of the key's versions, which a rebuild of a lost key store needs. */
  keepWrappings(project: string, file: ProjectFile, keys: readonly LeasedKey[]): Promise<ProjectFile>;
}
