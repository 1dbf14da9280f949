import { AppError } from '@bundoc/shared/contract/app-error';

/** The limits of a project; 0 for no limit. */
export interface Quota {
  readonly documentsMax: number;
  /** Sealed bytes. */
  readonly bytesMax: number;
}

/** The usage of a project, or its change by a commit: negative for a decrease. */
export interface Usage {
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
}

/**
 * The quota of a project while a group of commits is planned, each after those before it. Created from the
 * current usage while no one else can write to the project.
 */
export class GroupQuota {
  readonly #quota: Quota;
  #documents: number;
  #bytes: number;

  constructor(quota: Quota, usage: Usage) {
    this.#quota = quota;
    this.#documents = usage.documents;
    this.#bytes = usage.bytes;
  }

  /**
   * Counts a commit. One that adds nothing is always accepted, even above the quota, so that a project can
   * get below it.
   *
   * @param added by all of its writes together.
   * @throws AppError `quota_exceeded`; then nothing is counted.
   */
  admit(added: Usage): void {
    const { documentsMax, bytesMax } = this.#quota;
    const documents = this.#documents + added.documents;
    const bytes = this.#bytes + added.bytes;
    if (documentsMax > 0 && added.documents > 0 && documents > documentsMax)
      throw new AppError('quota_exceeded', { detail: `a project has at most ${documentsMax} documents` });
    if (bytesMax > 0 && added.bytes > 0 && bytes > bytesMax)
      throw new AppError('quota_exceeded', { detail: `a project has at most ${bytesMax} sealed bytes` });
    this.#documents = documents;
    this.#bytes = bytes;
  }
}

/** The part of a document's state that a quota counts. */
interface Counted {
  /** Sealed bytes. */
  readonly size: number;
  /** 0 while the document exists. */
  readonly deletedMs: number;
}

/** The change of the usage when a document changes from one state to another. */
export function usageDelta(before: Counted | undefined, after: Counted): Usage {
  const wasAlive = before?.deletedMs === 0;
  const isAlive = after.deletedMs === 0;
  return {
    documents: Number(isAlive) - Number(wasAlive),
    bytes: (isAlive ? after.size : 0) - (wasAlive ? before.size : 0),
  };
}

/** The sum of both. */
export function sumOf(one: Usage, other: Usage): Usage {
  return { documents: one.documents + other.documents, bytes: one.bytes + other.bytes };
}

export const NOTHING: Usage = { documents: 0, bytes: 0 };
