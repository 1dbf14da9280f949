import { type Share, WAIT_MS_MAX } from '@bundoc/shared/shares/share';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { FairTurns } from './fair-turns.ts';
import { LargeThread } from './large-thread.ts';
import { type OwnWork, Work, type WorkKind } from './work.ts';

/** Time that all long work of the process takes on the event loop's thread in one turn. */
export const SLICE_US = 2_000;

/** Up to so much is not worth a callback of its own: it is counted in whichever turn comes next. */
const FORGOTTEN_US = SLICE_US / 10;

export interface SchedulerDeps {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Calls back in the next turn of the event loop, after others were served. */
  readonly nextTurn: (run: () => void) => void;
  /** Hears of all time that long work takes. */
  readonly onUsed?: (key: ShareKey, us: number) => void;
  /** Bytes of memory that work holds; no bound when it is absent. */
  readonly memory?: Room;
  /** Places for work that waits; unbounded when absent. */
  readonly places?: Room;
}

/** What long work needs of a share, for which it does not wait. */
export type Room = Pick<Share, 'tryTake' | 'refusal'>;

const systemPorts: SchedulerDeps = {
  nowMs: () => performance.now(),
  nextTurn: (run) => setImmediate(run),
};

/**
 * Shares the event loop's thread among all long work of the process: at most one slice of {@link SLICE_US} a
 * turn, subjects in turn, then their projects. Work is charged for the time that it runs on the thread, and
 * waiting costs nothing. The processor time that the system counts for a thread is no measure for slices: it
 * moves by ticks of up to 4 ms.
 *
 * Work that fits into what is left of the slice, while nobody waits, runs at once.
 *
 * One class, because each charge of time may decide whose turn is next.
 */
export class Scheduler implements AsyncDisposable {
  readonly #ports: SchedulerDeps;
  readonly #waiting = new FairTurns<Work>(SLICE_US);
  readonly #usedUs = new Map<WorkKind, number>();
  /** What long work has taken of this turn. */
  #turnUs = 0;
  #isTurnComing = false;
  #slices = 0;
  /** The task that runs, since when it was charged for nothing, and until when it may run. */
  #running: Work | undefined;
  #sinceMs = 0;
  #untilMs = 0;
  /** Whose turn it is. */
  #holder: Work | undefined;
  /** Work that has not begun, first come first, and since when it waits. */
  readonly #unbegun = new Map<Work, number>();

  /** Works on what is too large for this thread. */
  readonly large: LargeThread;

  constructor(ports: Partial<SchedulerDeps> = {}, large: LargeThread = new LargeThread()) {
    this.#ports = { ...systemPorts, ...ports };
    this.large = large;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.large[Symbol.asyncDispose]();
  }

  /**
   * A piece of long work. Nothing runs before its first {@link Work.pause}. It may take {@link WORK_MS_MAX},
   * unless it is of the service itself.
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
    if (this.#running === work && nowMs < this.#untilMs) return true;
    this.#settle(nowMs);
    const isNext = this.#holder === work || this.#waiting.size === 0;
    const leftUs = isNext ? SLICE_US - this.#turnUs : 0;
    if (leftUs <= 0) return false;
    this.#running = work;
    this.#sinceMs = nowMs;
    this.#untilMs = nowMs + leftUs / 1_000;
    return true;
  }

  /** A task waits for something else. */
  leave(work: Work): void {
    if (this.#running === work) this.#settle(this.#ports.nowMs());
  }

  /** @param hasBegun other work is refused when it has waited too long. */
  enqueue(work: Work, hasBegun: boolean): void {
    if (!hasBegun) this.#unbegun.set(work, this.#ports.nowMs());
    this.#waiting.add(work.key, work);
    this.#awaitTurn();
  }

  get nowMs(): number {
    return this.#ports.nowMs();
  }

  get memory(): Room | undefined {
    return this.#ports.memory;
  }

  get places(): Room | undefined {
    return this.#ports.places;
  }

  dequeue(work: Work): void {
    this.#unbegun.delete(work);
    this.#waiting.remove(work);
  }

  /** Charges the task that ran, which runs no more. */
  #settle(nowMs: number): void {
    const work = this.#running;
    this.#running = undefined;
    if (work !== undefined) this.#charge(work, (nowMs - this.#sinceMs) * 1_000);
  }

  /** Whether work would wait for its turn now. */
  get isBusy(): boolean {
    return this.#waiting.size > 0 || this.#turnUs >= SLICE_US;
  }

  /** Processor time of this thread that a task took outside of its slices: others have their turns first. */
  spend(work: Work, us: number): void {
    this.#charge(work, us);
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

  /** Refuses work that has waited too long for its first slice. */
  #refuseLate(): void {
    const beforeMs = this.#ports.nowMs() - WAIT_MS_MAX;
    for (const [work, sinceMs] of this.#unbegun) {
      if (sinceMs > beforeMs) return;
      this.dequeue(work);
      work.waitedTooLong();
    }
  }

  #awaitTurn(): void {
    if (this.#isTurnComing) return;
    this.#isTurnComing = true;
    this.#ports.nextTurn(() => {
      this.#isTurnComing = false;
      if (this.#running !== undefined) this.#settle(this.#ports.nowMs());
      this.#turnUs = 0;
      this.#refuseLate();
      this.#holder = this.#waiting.next();
      if (this.#holder === undefined) return;
      this.#unbegun.delete(this.#holder);
      this.#slices++;
      // Whether it takes all of it or none: the next one comes in the next turn.
      this.#awaitTurn();
      this.#holder.granted();
    });
  }
}

/** By itself: for commands and tests, where nobody else has work. */
export function ownWork(project = ''): OwnWork {
  const scheduler = new Scheduler();
  return (kind) => scheduler.background(project, kind);
}
