import { AppError } from '@bundoc/shared/contract/app-error';

/** What a project may hold; 0 for no limit. */
export interface Quota {
  readonly documentsMax: number;
  /** Sealed bytes. */
  readonly bytesMax: number;
}

/** What a project holds, or what a commit adds to it: less than 0 for what it takes away. */
export interface Usage {
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
}

/**
 * The quota of a project for commits that are decided one after another, each by what those before it leave.
 * To be made from what the project holds while nobody else can write to it.
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
   * Counts a commit. One that adds nothing is always let pass, also where there is too much already: that is
   * the way out.
   *
   * @param added by all of its writes together.
   * @throws AppError `quota_exceeded`, which counts nothing.
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

/** As much of a document's state as a quota counts. */
interface Counted {
  /** Sealed bytes. */
  readonly size: number;
  /** 0 while the document lives. */
  readonly deletedMs: number;
}

/** What a write adds that makes one state of a document of another. */
export function addedBy(before: Counted | undefined, after: Counted): Usage {
  const wasAlive = before?.deletedMs === 0;
  const isAlive = after.deletedMs === 0;
  return {
    documents: Number(isAlive) - Number(wasAlive),
    bytes: (isAlive ? after.size : 0) - (wasAlive ? before.size : 0),
  };
}

/** Both together. */
export function sumOf(one: Usage, other: Usage): Usage {
  return { documents: one.documents + other.documents, bytes: one.bytes + other.bytes };
}

export const NOTHING: Usage = { documents: 0, bytes: 0 };
