import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { OwnWork } from '../../../work/work.ts';
import { ByteWriter } from '../../port/bytes.ts';
import type { WriteResult } from '../../port/port.ts';
import type { SealBudget, SealCount } from '../../port/seal-budget.ts';
import { writeSealsRecord } from '../../port/state.ts';
import type { ProjectFiles } from '../documents/project-files.ts';
import type { AttachedHandle, PartSource, TakenPart } from '../log/log-api.ts';
import {
  answerTo,
  estimatedBytes,
  type FrameChange,
  type GroupPreparer,
  type Prepared,
  type PreparedGroup,
  type ToSeal,
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
  /** Called with the changes of a durable part, before its commits are answered. */
  readonly publish: (changes: readonly FrameChange[]) => void;
  /** Called when a durable part could not be published or answered. */
  readonly fail: (error: unknown) => void;
  /** Called when the commits of a part were answered. */
  readonly onAnswered: () => void;
  /** Called when a rotation of the key is due, because its version has sealed enough. */
  readonly onRotationDue: (version: number) => void;
  readonly ownWork: OwnWork;
  /** Schedules a task; `setTimeout` by default. */
  readonly later?: (task: () => void, ms: number) => NodeJS.Timeout;
}

/** Maximum wait for capacity in the backlog of documents, the same as for other shared limits. */
const WAIT_MS_MAX = 5_000;

/**
 * Bytes of a part up to which its documents are sealed while it is taken. Those of a larger part are sealed
 * before.
 */
const SEAL_AT_ONCE_BYTES = 1_048_576;

/** A planned part, which precedes all waiting commits. */
interface NextPart {
  readonly part: TakenPart;
  /** Whether its documents are sealed. */
  isSealed: boolean;
}

/**
 * The commits of a store that wait for the log, or are being written into it.
 *
 * One class, because each commit passes through its states here in one order, and any state can end in a
 * refusal.
 */
export class CommitQueue implements PartSource {
  readonly project: string;
  readonly handle: string;
  readonly keys: ProjectCipher;
  readonly attached: AttachedHandle;
  readonly #options: CommitQueueOptions;
  readonly #later: NonNullable<CommitQueueOptions['later']>;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #partsBeingWritten = 0;
  /** Of these, the parts whose changes are not readable yet. */
  #unpublished = 0;
  /** Callers that wait until this many parts are done. They resolve in order. */
  #partWaits: { left: number; readonly done: () => void }[] | undefined;
  #next: NextPart | undefined;
  /** Timer that refuses commits which wait for backlog capacity. */
  #refusal: NodeJS.Timeout | undefined;
  /** Resolved when no commit waits or is being written. */
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(options: CommitQueueOptions) {
    this.#options = options;
    this.#later = options.later ?? ((task, ms) => setTimeout(task, ms).unref());
    this.project = options.project;
    this.handle = options.handle;
    this.keys = options.cipher;
    this.attached = options.attach(this);
  }

  /** The load of waiting commits. */
  get load(): { readonly commits: number; readonly bytes: number } {
    return { commits: this.#waiting.length, bytes: this.#waitingBytes };
  }

  /** Whether commits have positions and are not readable yet. */
  get hasUnpublished(): boolean {
    return this.#unpublished > 0;
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

  /** Resolves once all currently planned commits are readable or refused. */
  async whenDecidedIsOver(): Promise<void> {
    const left = this.#partsBeingWritten;
    if (left === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#partWaits ??= [];
    this.#partWaits.push({ left, done: resolve });
    await promise;
  }

  get makesRoom(): boolean {
    const [first] = this.#waiting;
    return this.#next === undefined && first !== undefined && onlyDeletes(first);
  }

  get nextBytes(): number | undefined {
    if (this.#next !== undefined) return this.#next.isSealed ? SEAL_AT_ONCE_BYTES : undefined;
    const [first] = this.#waiting;
    return first && estimatedBytes(first);
  }

  take(bytesMax: number, onlyMakingRoom: boolean): TakenPart | undefined {
    if (this.#next !== undefined) return this.#takeNext(onlyMakingRoom);
    const { files } = this.#options;
    if (files.isFull) this.#refuseAll(new AppError('disk_full'), isNoDelete);
    while (this.#waiting.length > 0) {
      if (!onlyMakingRoom && !files.hasCapacity) {
        files.whenCapacity(() => this.attached.again());
        this.#refusal ??= this.#later(() => {
          this.#refusal = undefined;
          this.refuse(
            new AppError('overloaded', { detail: 'too many documents wait for the disk', retryAfterS: 1 }),
          );
        }, WAIT_MS_MAX);
        return undefined;
      }
      clearTimeout(this.#refusal);
      this.#refusal = undefined;
      const group = this.#takeGroup(bytesMax, onlyMakingRoom);
      if (group.length === 0) return undefined;
      const part = this.#partOf(group);
      if (part !== undefined || this.#next !== undefined) return part;
    }
    this.#noteIdle();
    return undefined;
  }

  #takeNext(onlyMakingRoom: boolean): TakenPart | undefined {
    if (this.#next?.isSealed !== true || onlyMakingRoom) return undefined;
    const { part } = this.#next;
    this.#next = undefined;
    return part;
  }

  refuse(error: AppError): void {
    this.#refuseAll(error, error.code === 'disk_full' ? isNoDelete : () => true);
  }

  fail(error: unknown): void {
    this.#options.fail(error);
  }

  /** The oldest commits, in order. */
  #takeGroup(bytesMax: number, onlyMakingRoom: boolean): Waiting[] {
    let count = 0;
    let bytes = 0;
    for (const waiting of this.#waiting) {
      bytes += estimatedBytes(waiting);
      if ((count > 0 && bytes > bytesMax) || (onlyMakingRoom && !onlyDeletes(waiting))) break;
      this.#waitingBytes -= waiting.bytes;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  /** @returns undefined when the group writes nothing; its commits are already answered then. */
  #partOf(group: readonly Waiting[]): TakenPart | undefined {
    const seals = group.reduce((sum, waiting) => sum + sealsOf(waiting), 0);
    let reservation: SealCount | undefined;
    try {
      const plan = this.#options.seals.planFor(seals);
      reservation = plan.reservation;
      if (plan.mustWait && reservation !== undefined) {
        // The reservation goes first, in a separate part.
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
      const prepared = this.#options.preparer.prepare(group);
      if (prepared.frame.length > 0) return this.#sealed(prepared, reservation);
      // All are refused, or repetitions under idempotency keys.
      for (const commit of prepared.commits) answerTo(commit);
    } catch (error) {
      for (const { done } of group) done.reject(error);
    }
    return undefined;
  }

  /** @returns undefined for a large part, which becomes {@link #next} once its documents are sealed. */
  #sealed(
    { commits, changes, frame, toSeal }: PreparedGroup,
    reservation: SealCount | undefined,
  ): TakenPart | undefined {
    if (frame.length <= SEAL_AT_ONCE_BYTES || toSeal.length === 0) {
      for (const { fileName, text, target } of toSeal) this.keys.sealDocument(fileName, text, target);
      return this.#taken(commits, changes, frame, reservation);
    }
    this.#next = { part: this.#taken(commits, changes, frame, reservation), isSealed: false };
    void this.#sealInSteps(this.#next, toSeal);
    return undefined;
  }

  /** Yields to other projects in between. Nothing else of this project is taken in the meantime. */
  async #sealInSteps(next: NextPart, toSeal: readonly ToSeal[]): Promise<void> {
    // Asynchronous, because the log ignores `again` while it is still taking from this source.
    await Promise.resolve();
    try {
      using work = this.#options.ownWork('write');
      for (const { fileName, text, target } of toSeal)
        for (const _step of this.keys.sealDocumentInSteps(fileName, text, target)) {
          const turn = work.pause();
          if (turn !== undefined) await turn;
        }
      next.isSealed = true;
    } catch (error) {
      if (this.#next !== next) return;
      this.#next = undefined;
      next.part.refused(new AppError('storage_unavailable', { cause: error }));
    }
    // The part may have been refused in the meantime.
    if (this.#next === next || this.#waiting.length > 0) this.attached.again();
  }

  #taken(
    commits: readonly Prepared[],
    changes: readonly FrameChange[],
    frame: Buffer,
    reservation: SealCount | undefined,
  ): TakenPart {
    this.#partsBeingWritten++;
    this.#unpublished++;
    let isPublished = false;
    const published = () => {
      if (!isPublished) this.#unpublished--;
      isPublished = true;
    };
    const refuse = (error: AppError) => {
      published();
      for (const { waiting } of commits) waiting.done.reject(error);
      this.#partIsOver();
    };
    return {
      kind: 'data',
      plaintext: reservation === undefined ? [frame] : [frame, recordOf(reservation)],
      keyVersion: this.keys.version,
      commits: commits.filter(({ outcome }) => 'results' in outcome).length,
      durable: () => {
        if (reservation !== undefined) this.#reserved(reservation);
        this.#options.publish(changes);
        published();
      },
      answer: () => {
        for (const commit of commits) answerTo(commit);
        this.#partIsOver();
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

  /** A planned part that was not taken yet never consists of deletes only. */
  #refuseAll(error: AppError, isRefused: (waiting: Waiting) => boolean): void {
    const next = this.#next;
    this.#next = undefined;
    next?.part.refused(error);
    const left: Waiting[] = [];
    for (const waiting of this.#waiting) {
      if (!isRefused(waiting)) left.push(waiting);
      else {
        this.#waitingBytes -= waiting.bytes;
        waiting.done.reject(error);
      }
    }
    this.#waiting = left;
    if (left.length === 0) {
      clearTimeout(this.#refusal);
      this.#refusal = undefined;
    }
    this.#noteIdle();
  }

  #partIsOver(): void {
    this.#partsBeingWritten--;
    if (this.#partWaits !== undefined) {
      const over = this.#partWaits.filter((wait) => --wait.left === 0);
      this.#partWaits = this.#partWaits.filter(({ left }) => left > 0);
      for (const { done } of over) done();
    }
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
