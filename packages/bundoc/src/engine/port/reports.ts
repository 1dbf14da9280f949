import type { AppError } from '@bundoc/shared/contract/app-error';

/** One fault. Contains nothing confidential. */
export interface Finding {
  /** A part of the project, or the path of a file below its folder. */
  readonly part: string;
  readonly problem: string;
}

export interface VerifiedStore {
  /** Number of living documents that were checked. */
  readonly documents: number;
  readonly findings: readonly Finding[];
}

/** Called with the number of finished documents. */
export type OnProgress = (done: number, total: number) => void;

export interface VerifiedProject {
  readonly project: string;
  /** Number of documents that were checked. */
  readonly documents: number;
  /** The faults; empty when all is intact. */
  readonly findings: readonly Finding[];
}

/** The finding for an error that prevented a check. */
export function findingOf(error: AppError): Finding {
  switch (error.code) {
    case 'key_not_found':
    case 'key_missing':
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
  /** Deleted documents that the change feed still reports. */
  readonly tombstones: number;
  /** Collections with a document. */
  readonly collections: number;
  /** Bytes of all document files. */
  readonly sealedBytes: number;
  /** Uncovered bytes of the project in the log; only in files. */
  readonly logBytes?: number;
  /** Versions of the project's key that `project.json` lists. */
  readonly keyVersions: readonly number[];
  /** Sequence number of the last commit. */
  readonly lastSeq: number;
}

export type StatsOutcome =
  | ({ readonly project: string } & ProjectStats)
  | { readonly project: string; readonly error: string };
