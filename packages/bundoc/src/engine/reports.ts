import type { AppError } from '@bundoc/shared/contract/app-error';

/** One thing that is wrong. Names nothing that is sealed. */
export interface Finding {
  /** A part of the project, or the path of a file below its folder. */
  readonly part: string;
  readonly problem: string;
}

export interface VerifiedStore {
  /** Living documents that were checked. */
  readonly documents: number;
  readonly findings: readonly Finding[];
}

/** Told how many of the documents are done. */
export type OnProgress = (done: number, total: number) => void;

export interface VerifiedProject {
  readonly project: string;
  /** Documents that were checked. */
  readonly documents: number;
  /** What is wrong; nothing when all is well. */
  readonly findings: readonly Finding[];
}

/** What an error says that kept a project from being looked at. */
export function findingOf(error: AppError): Finding {
  switch (error.code) {
    case 'key_not_found':
      return { part: 'key', problem: 'key_missing: BunKMS has no key of this project' };
    case 'disk_full':
    case 'storage_unavailable':
      return { part: 'disk', problem: error.code };
    default:
      return { part: 'key', problem: error.code };
  }
}

export interface ProjectStats {
  readonly documents: number;
  /** Deleted documents that the change feed still tells of. */
  readonly tombstones: number;
  /** Collections that hold a document. */
  readonly collections: number;
  /** Bytes of all document files. */
  readonly sealedBytes: number;
  /** Bytes of the log that a checkpoint has not covered yet; in files. */
  readonly logBytes?: number;
  /** Versions of the project's key that `project.json` lists. */
  readonly keyVersions: readonly number[];
  /** Sequence number of the last commit. */
  readonly lastSeq: number;
}

export type StatsOutcome =
  | ({ readonly project: string } & ProjectStats)
  | { readonly project: string; readonly error: string };
