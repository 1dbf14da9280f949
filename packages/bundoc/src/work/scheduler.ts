import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { FairTurns } from './fair-turns.ts';
import type { LargeInput, LargeJobName, LargeOutput } from './large-jobs.ts';
import { LargeThread } from './large-thread.ts';
import type { WorkingMemory } from './working-memory.ts';

/** Kinds of long work, as the metrics name them. */
export const WORK_KINDS = [
  'query',
  'write',
  'batch',
  'patch',
  'projection',
  'definition',
  'index',
  'snapshot',
  'expiry',
] as const;
export type WorkKind = (typeof WORK_KINDS)[number];

/** Processor time that all long work of the process takes in one turn of the event loop. */
export const SLICE_US = 2_000;

/** Up to so much is not worth a callback of its own: it is counted in whichever turn comes next. */
const FORGOTTEN_US = SLICE_US / 10;

export interface SchedulerPorts {
  /** Processor time of this thread, microseconds. */
  readonly processorUs: () => number;
  /** Monotonic and cheap: processor time is asked for only once as much of this has passed. */
  readonly nowMs: () => number;
  /** Calls back in the next turn of the event loop, after others were served. */
  readonly nextTurn: (run: () => void) => void;
  /** Hears of all time that long work takes. */
  readonly onUsed?: (key: ShareKey, us: number) => void;
  readonly memory: WorkingMemory;
}

const systemPorts: SchedulerPorts = {
  processorUs: () => {
    const { user, system } = process.threadCpuUsage();
    return user + system;
  },
  nowMs: () => performance.now(),
  nextTurn: (run) => setImmediate(run),
  memory: { reserve: () => undefined, release: () => undefined },
};

/**
 * Shares the event loop's thread among all long work of the process: at most one slice of {@link SLICE_US} a turn, subjects in turn, then their
 * projects. Time is measured as processor time of the thread, so waiting costs nothing.
 *
 * Work that fits into what is left of the slice, while nobody waits, runs at once.
 */
export class Scheduler implements AsyncDisposable {
  readonly #ports: SchedulerPorts;
  readonly #waiting = new FairTurns<Work>(SLICE_US);
  readonly #usedUs = new Map<WorkKind, number>();
  /** What long work has taken of this turn. */
  #turnUs = 0;
  #isTurnComing = false;
  #slices = 0;
  /** The task that runs, processor time up to which everything was charged, and before when it cannot have taken what it may. */
  #running: Work | undefined;
  #chargedUs = 0;
  #askAtMs = 0;
  /** Whose turn it is. */
  #holder: Work | undefined;

  /** Works on what is too large for this thread. */
  readonly large: LargeThread;

  constructor(ports: Partial<SchedulerPorts> = {}, large: LargeThread = new LargeThread()) {
    this.#ports = { ...systemPorts, ...ports };
    this.large = large;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.large[Symbol.asyncDispose]();
  }

  /**
   * A piece of long work. Nothing runs before its first {@link Work.pause}.
   *
   * @param signal ends a wait with its reason at once.
   */
  work(key: ShareKey, kind: WorkKind, signal?: AbortSignal): Work {
    return new Work(this, key, kind, signal);
  }

  /** Work of the service itself for a project. Empty where it is for none. */
  background(project: string, kind: WorkKind): Work {
    return this.work({ subject: '', project }, kind);
  }

  /** Slices that waited for their turn, and were given it. */
  get slices(): number {
    return this.#slices;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Processor time of a kind of work, seconds. */
  usedS(kind: WorkKind): number {
    return (this.#usedUs.get(kind) ?? 0) / 1e6;
  }

  /**
   * Whether a task may run on. It is the one that runs then; what the one before has taken is charged.
   *
   * For {@link Work} alone, as are the others below.
   */
  mayRun(work: Work): boolean {
    const nowMs = this.#ports.nowMs();
    if (this.#running === work && nowMs < this.#askAtMs) return true;
    this.#settle();
    const isNext = this.#holder === work || this.#waiting.size === 0;
    const leftUs = isNext ? SLICE_US - this.#turnUs : 0;
    if (leftUs <= 0) return false;
    this.#running = work;
    this.#askAtMs = nowMs + leftUs / 1_000;
    return true;
  }

  /** A task waits for something else. */
  leave(work: Work): void {
    if (this.#running === work) this.#settle();
  }

  enqueue(work: Work): void {
    this.#waiting.add(work.key, work);
    this.#awaitTurn();
  }

  get memory(): WorkingMemory {
    return this.#ports.memory;
  }

  dequeue(work: Work): void {
    this.#waiting.remove(work);
  }

  /** Charges what was taken since the last time to the task that ran, which runs no more. */
  #settle(): void {
    const us = this.#ports.processorUs();
    const work = this.#running;
    if (work !== undefined) this.#charge(work, us - this.#chargedUs);
    this.#chargedUs = us;
    this.#running = undefined;
  }

  /** Processor time that a task took in another thread. */
  count({ key, kind }: Work, us: number): void {
    this.#usedUs.set(kind, (this.#usedUs.get(kind) ?? 0) + us);
    this.#ports.onUsed?.(key, us);
  }

  #charge(work: Work, us: number): void {
    this.#turnUs += us;
    this.count(work, us);
    this.#waiting.charge(work.key, us);
    // So little needs no turn of its own to be forgotten.
    if (this.#turnUs > FORGOTTEN_US) this.#awaitTurn();
  }

  #awaitTurn(): void {
    if (this.#isTurnComing) return;
    this.#isTurnComing = true;
    this.#ports.nextTurn(() => {
      this.#isTurnComing = false;
      if (this.#running !== undefined) this.#settle();
      this.#turnUs = 0;
      this.#holder = this.#waiting.next();
      if (this.#holder === undefined) return;
      this.#slices++;
      // Whether it takes all of it or none: the next one comes in the next turn.
      this.#awaitTurn();
      this.#holder.granted();
    });
  }
}

/** One task that may take long. From a {@link pause} to its next call it runs without others. */
export class Work implements Disposable {
  readonly key: ShareKey;
  readonly kind: WorkKind;
  readonly #scheduler: Scheduler;
  readonly #signal: AbortSignal | undefined;
  #grant: (() => void) | undefined;
  #heldBytes = 0;

  /** @see Scheduler.work */
  constructor(scheduler: Scheduler, key: ShareKey, kind: WorkKind, signal: AbortSignal | undefined) {
    this.#scheduler = scheduler;
    this.key = key;
    this.kind = kind;
    this.#signal = signal;
  }

  /**
   * To be awaited before the first step and between any two. Undefined while the slice lasts, so that it need not be awaited then.
   *
   * Rejects with the signal's reason.
   */
  pause(): Promise<void> | undefined {
    if (this.#scheduler.mayRun(this)) return undefined;
    return this.#signal?.aborted === true ? Promise.reject(this.#signal.reason) : this.#wait();
  }

  /** Ends what runs, before the task waits for something else. */
  leave(): void {
    this.#scheduler.leave(this);
  }

  /** Waits for something else than the processor. What `begin` does before it waits belongs to the task. */
  async outside<T>(begin: () => T | Promise<T>): Promise<T> {
    this.#signal?.throwIfAborted();
    await this.pause();
    let begun: T | Promise<T>;
    try {
      begun = begin();
    } finally {
      this.leave();
    }
    const result = await begun;
    this.#signal?.throwIfAborted();
    await this.pause();
    return result;
  }

  /**
   * Has a job done on a large document, in the thread for those.
   *
   * @throws AppError of the job; `payload_too_large` for one that takes too long; the signal's reason.
   */
  async elsewhere<N extends LargeJobName>(name: N, input: LargeInput<N>): Promise<LargeOutput<N>> {
    const { output, us } = await this.outside(() =>
      this.#scheduler.large.run(this.key, name, input, this.#signal),
    );
    this.#scheduler.count(this, us);
    return output;
  }

  /**
   * Bytes of memory that the task holds from now on, all together. They are given back when it is disposed of.
   *
   * @throws AppError `rate_limited`, `overloaded`.
   */
  hold(bytes: number): void {
    const { memory } = this.#scheduler;
    const more = Math.ceil(bytes) - this.#heldBytes;
    if (more > 0) memory.reserve(this.key, more);
    else if (more < 0) memory.release(this.key, -more);
    this.#heldBytes += more;
  }

  /** What {@link hold} was asked for last. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** For {@link Scheduler} alone. */
  granted(): void {
    const grant = this.#grant;
    this.#grant = undefined;
    this.#scheduler.mayRun(this);
    grant?.();
  }

  [Symbol.dispose](): void {
    this.leave();
    this.hold(0);
  }

  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#scheduler.dequeue(this);
        this.#grant = undefined;
        reject(this.#signal?.reason);
      };
      this.#signal?.addEventListener('abort', onAbort, { once: true });
      this.#grant = () => {
        this.#signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      this.#scheduler.enqueue(this);
    });
  }
}

/** Begins long work of the service itself for one project. */
export type OwnWork = (kind: WorkKind) => Work;

/** By itself: for commands and tests, where nobody else has work. */
export function ownWork(project = ''): OwnWork {
  const scheduler = new Scheduler();
  return (kind) => scheduler.background(project, kind);
}
