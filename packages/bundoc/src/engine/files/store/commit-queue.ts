import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { ByteWriter } from '../../bytes.ts';
import type { WriteResult } from '../../port.ts';
import type { SealBudget, SealCount } from '../../seal-budget.ts';
import { writeSealsRecord } from '../../state.ts';
import type { ProjectFiles } from '../documents/document-writer.ts';
import type { AttachedHandle, PartSource, TakenPart } from '../log/log-api.ts';
import {
  type FrameChange,
  type GroupPreparer,
  likelyBytes,
  type Prepared,
  type Waiting,
} from './group-preparer.ts';

export interface CommitQueueOptions {
  readonly project: string;
  /** Identifies the store's parts in the log. */
  readonly handle: string;
  readonly cipher: ProjectCipher;
  readonly files: Pick<ProjectFiles, 'isFull' | 'hasCapacity' | 'whenCapacity'>;
  readonly seals: SealBudget;
  readonly preparer: GroupPreparer;
  /** Attaches the queue to the log. */
  readonly attach: (source: PartSource) => AttachedHandle;
  /** Called with the changes of a part that is durable, before its commits are answered. */
  readonly publish: (changes: readonly FrameChange[]) => void;
  /** Called when the commits of a part were answered. */
  readonly onAnswered: () => void;
  /** Called when the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** The commits of a store that wait for the log, or are being written into it. */
export class CommitQueue implements PartSource {
  readonly project: string;
  readonly handle: string;
  readonly keys: ProjectCipher;
  readonly attached: AttachedHandle;
  readonly #options: CommitQueueOptions;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #partsBeingWritten = 0;
  /** Resolved when no commit waits or is being written. */
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(options: CommitQueueOptions) {
    this.#options = options;
    this.project = options.project;
    this.handle = options.handle;
    this.keys = options.cipher;
    this.attached = options.attach(this);
  }

  /** Commits that wait. */
  get load(): { readonly commits: number; readonly bytes: number } {
    return { commits: this.#waiting.length, bytes: this.#waitingBytes };
  }

  enqueue(commit: Omit<Waiting, 'done'>): Promise<readonly WriteResult[]> {
    const done = Promise.withResolvers<readonly WriteResult[]>();
    this.#waiting.push({ ...commit, done });
    this.#waitingBytes += commit.bytes;
    this.attached.ready();
    return done.promise;
  }

  /** Resolves once no commit waits or is being written. */
  async whenIdle(): Promise<void> {
    if (this.#waiting.length === 0 && this.#partsBeingWritten === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  get makesRoom(): boolean {
    const [first] = this.#waiting;
    return first !== undefined && onlyDeletes(first);
  }

  take(bytesMax: number, onlyMakingRoom: boolean): TakenPart | undefined {
    const { files } = this.#options;
    if (files.isFull) this.#refuseAll(new AppError('disk_full'), isNoDelete);
    while (this.#waiting.length > 0) {
      if (!onlyMakingRoom && !files.hasCapacity) {
        files.whenCapacity(() => this.attached.ready());
        return undefined;
      }
      const group = this.#takeGroup(bytesMax, onlyMakingRoom);
      if (group.length === 0) return undefined;
      const part = this.#partOf(group);
      if (part !== undefined) return part;
    }
    this.#noteIdle();
    return undefined;
  }

  refuse(error: AppError): void {
    this.#refuseAll(error, error.code === 'disk_full' ? isNoDelete : () => true);
  }

  /** The commits that wait longest, in order. */
  #takeGroup(bytesMax: number, onlyMakingRoom: boolean): Waiting[] {
    let count = 0;
    let bytes = 0;
    for (const waiting of this.#waiting) {
      bytes += likelyBytes(waiting);
      if ((count > 0 && bytes > bytesMax) || (onlyMakingRoom && !onlyDeletes(waiting))) break;
      this.#waitingBytes -= waiting.bytes;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  /** @returns undefined when the group writes nothing; each commit of it is answered then. */
  #partOf(group: readonly Waiting[]): TakenPart | undefined {
    const seals = group.reduce((sum, waiting) => sum + sealsOf(waiting), 0);
    let reservation: SealCount | undefined;
    try {
      const plan = this.#options.seals.planFor(seals);
      reservation = plan.reservation;
      if (plan.mustWait && reservation !== undefined) {
        // The reservation goes first, in a part of its own.
        this.#waiting = [...group, ...this.#waiting];
        this.#waitingBytes += group.reduce((sum, { bytes }) => sum + bytes, 0);
        return this.#taken([], [], Buffer.alloc(0), reservation);
      }
    } catch (error) {
      for (const waiting of group) if (isNoDelete(waiting)) waiting.done.reject(error);
      const deletes = group.filter(onlyDeletes);
      return deletes.length === 0 ? undefined : this.#partOf(deletes);
    }
    try {
      const { commits, changes, frame } = this.#options.preparer.prepare(group);
      if (frame.length > 0) return this.#taken(commits, changes, frame, reservation);
      // All are repetitions under idempotency keys.
      for (const { results, waiting } of commits) waiting.done.resolve(results);
    } catch (error) {
      for (const { done } of group) done.reject(error);
    }
    return undefined;
  }

  #taken(
    commits: readonly Prepared[],
    changes: readonly FrameChange[],
    frame: Buffer,
    reservation: SealCount | undefined,
  ): TakenPart {
    const refuse = (error: AppError) => {
      for (const { waiting } of commits) waiting.done.reject(error);
      this.#partsBeingWritten--;
      this.#noteIdle();
    };
    this.#partsBeingWritten++;
    return {
      kind: 'data',
      plaintext: reservation === undefined ? [frame] : [frame, recordOf(reservation)],
      keyVersion: this.keys.version,
      commits: commits.length,
      durable: () => {
        if (reservation !== undefined) this.#reserved(reservation);
        this.#options.publish(changes);
      },
      answer: () => {
        for (const { results, waiting } of commits) waiting.done.resolve(results);
        this.#partsBeingWritten--;
        this.#noteIdle();
        this.#options.onAnswered();
      },
      refused: refuse,
      unknown: refuse,
    };
  }

  #reserved(reservation: SealCount): void {
    const { seals, onRotationDue } = this.#options;
    seals.reserved(reservation);
    if (seals.rotationDue) onRotationDue(this.keys.version);
  }

  #refuseAll(error: AppError, isRefused: (waiting: Waiting) => boolean): void {
    const left: Waiting[] = [];
    for (const waiting of this.#waiting) {
      if (!isRefused(waiting)) left.push(waiting);
      else {
        this.#waitingBytes -= waiting.bytes;
        waiting.done.reject(error);
      }
    }
    this.#waiting = left;
    this.#noteIdle();
  }

  #noteIdle(): void {
    if (this.#idle === undefined || this.#waiting.length > 0 || this.#partsBeingWritten > 0) return;
    this.#idle.resolve();
    this.#idle = undefined;
  }
}

function recordOf(reservation: SealCount): Buffer {
  const writer = new ByteWriter(16);
  writeSealsRecord(writer, reservation);
  return writer.finish();
}

function onlyDeletes({ writes, reseals }: Waiting): boolean {
  return reseals.length === 0 && writes.every(({ kind }) => kind === 'delete');
}

function isNoDelete(waiting: Waiting): boolean {
  return !onlyDeletes(waiting);
}

function sealsOf({ writes, reseals }: Waiting): number {
  return reseals.length + writes.filter(({ kind }) => kind === 'put').length;
}
