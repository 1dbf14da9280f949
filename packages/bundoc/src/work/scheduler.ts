import { type Share, WAIT_MS_MAX } from '@bundoc/shared/shares/share';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { Admission } from './admission.ts';
import { LargeThread } from './large-thread.ts';
import { Levels, SLICE_US } from './levels.ts';
import { Loads } from './loads.ts';
import { type OwnWork, Work, type WorkKind } from './work.ts';

/**
 * No step takes longer. What seems to is garbage collection, or other processes. A subject that pays for
 * that would wait for seconds.
 */
const STEP_MAX_US = 5_000;

/**
 * A piece is short if it takes no longer. Short pieces of subjects that have little run so long ahead of the
 * slice of a turn. The slice is shorter by that, but at least half as long.
 */
export const AHEAD_US = SLICE_US / 2;

/**
 * Slices are shorter for so long after such a piece, because others may follow, and wait for turns of the
 * event loop. A slice takes a quarter of what else the turn before took then, within these bounds.
 */
const SHORT_MS = 1_000;
const SHORT_SLICE_US = { min: SLICE_US / 4, max: SLICE_US / 2 };

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
  /** Maximum requests of several subjects that run at a time; no bound when it is absent. */
  readonly requestsMax?: number;
}

/** What long work needs of a share, for which it does not wait. */
export type Room = Pick<
  Share,
  'tryTake' | 'charge' | 'held' | 'heldBy' | 'subjects' | 'capacity' | 'refusal'
>;

/** How often work that may not begin yet is checked, milliseconds. */
const PARKED_CHECK_MS = 1_000;

const systemPorts: SchedulerDeps = {
  nowMs: () => performance.now(),
  nextTurn: (run) => setImmediate(run),
};

/**
 * Shares the event loop's thread among all long work of the process: at most one slice of {@link SLICE_US} a
 * turn, {@link Levels} of work in turn, then subjects, then their projects. Short pieces of subjects that
 * have little run at once, up to {@link AHEAD_US} a turn.
 *
 * Work is charged for the time that it runs on the thread, and waiting costs nothing. The processor time that
 * the system counts for a thread is no measure for slices: it moves by ticks of up to 4 ms.
 *
 * Work that fits into what is left of the slice, while nobody waits, runs at once.
 *
 * One class, because each charge of time, and each end of work, may decide whose turn is next.
 */
export class Scheduler implements AsyncDisposable {
  readonly #ports: SchedulerDeps;
  /** Work that waits for its turn. */
  readonly #levels = new Levels<Work>();
  readonly #usedUs = new Map<WorkKind, number>();
  /** What long work has taken of this turn, and how much of that counts for what ran ahead of it. */
  #turnUs = 0;
  #carriedUs = 0;
  /** What has run ahead of the next turn. */
  #aheadUs = 0;
  /** When this turn began. */
  #turnMs = 0;
  #isTurnComing = false;
  #slices = 0;
  /** The task that runs, since when it was charged for nothing, and until when it may run. */
  #running: Work | undefined;
  #sinceMs = 0;
  #untilMs = 0;
  #isAhead = false;
  /** What all long work may take in this turn. */
  #sliceUs: number = SLICE_US;
  /** Until when slices are short. */
  #shortUntilMs = Number.NEGATIVE_INFINITY;
  /** Whose turn it is. */
  #holder: Work | undefined;
  /** The holder, until it pauses or leaves: its time counts from the grant. */
  #resuming: Work | undefined;
  /** Work that has not begun, first come first, and since when it waits. */
  readonly #unbegun = new Map<Work, number>();
  /** What each subject has asked for. */
  readonly #loads = new Loads();
  /** Which work may begin. */
  readonly #admission: Admission;
  #parkedTimer: NodeJS.Timeout | undefined;

  /** Works on what is too large for this thread. */
  readonly large: LargeThread;

  constructor(ports: Partial<SchedulerDeps> = {}, large: LargeThread = new LargeThread()) {
    this.#ports = { ...systemPorts, ...ports };
    this.large = large;
    const { requestsMax = Number.POSITIVE_INFINITY } = ports;
    this.#admission = new Admission(requestsMax, (subject) => this.#loads.hasLittle(subject));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#parkedTimer);
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
    return this.#levels.size + this.#admission.size;
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
    if (this.#resuming !== undefined && this.#resuming !== work) return false;
    this.#resuming = undefined;
    this.#settle(nowMs);
    const isNext = this.#holder === work || (this.#levels.size === 0 && !this.#admission.mustPark(work));
    const ofTurnUs = isNext ? this.#sliceUs - this.#turnUs : 0;
    this.#isAhead = ofTurnUs <= 0;
    const leftUs = this.#isAhead && this.#mayGoAhead(work, nowMs) ? AHEAD_US - this.#aheadUs : ofTurnUs;
    if (leftUs <= 0) return false;
    this.#running = work;
    this.#sinceMs = nowMs;
    this.#untilMs = nowMs + leftUs / 1_000;
    return true;
  }

  /**
   * Whether a task is a short piece of a subject that has little, and would be the next one. Slices are short
   * for a while if it is such a piece.
   */
  #mayGoAhead(work: Work, nowMs: number): boolean {
    if (!this.isShort(work) || !this.#loads.hasOthers(work.key.subject)) return false;
    if (this.#admission.mustPark(work)) return false;
    this.#shortUntilMs = nowMs + SHORT_MS;
    return this.#levels.wouldBeNext(work);
  }

  /** The holder goes on. What others did since the grant is of the turn, and not its own. */
  resumed(work: Work): void {
    if (this.#resuming !== work || this.#running !== work) return;
    const nowMs = this.#ports.nowMs();
    this.#turnUs += (nowMs - this.#sinceMs) * 1_000;
    this.#sinceMs = nowMs;
  }

  /** A task waits for something else: what is left of the slice is for others. */
  leave(work: Work): void {
    if (this.#running !== work) return;
    this.#resuming = undefined;
    this.#settle(this.#ports.nowMs());
    if (this.#turnUs < this.#sliceUs) this.#grantNext();
  }

  /** @param hasBegun other work is refused when it has waited too long. */
  enqueue(work: Work, hasBegun: boolean): void {
    this.#loads.add(work);
    if (!hasBegun) this.#unbegun.set(work, this.#ports.nowMs());
    if (!hasBegun && this.#admission.mustPark(work)) {
      this.#admission.park(work);
      this.#checkParked();
    } else this.#compete(work);
  }

  /** Whether a subject has much less work than others have. */
  hasLittle(subject: string): boolean {
    return this.#loads.hasLittle(subject);
  }

  /** Whether a task is a short piece, so far, of a subject that has little in short pieces. */
  isShort(work: Work): boolean {
    const { isOwn, usedUs, key, isOfLittle } = work;
    return !isOwn && usedUs <= AHEAD_US && this.#loads.expectedUs(key.subject) <= AHEAD_US && isOfLittle;
  }

  #compete(work: Work): void {
    this.#admission.admit(work);
    this.#levels.add(work);
    this.#awaitTurn();
  }

  /**
   * Refuses it in time, also while what has begun waits for a disk. Lets it begin when its subject has little
   * work by now.
   */
  #checkParked(): void {
    this.#parkedTimer ??= setTimeout(() => {
      this.#parkedTimer = undefined;
      this.#refuseLate();
      this.#unpark();
      if (this.#admission.size > 0) this.#checkParked();
    }, PARKED_CHECK_MS).unref();
  }

  /** Lets as much work begin as may. */
  #unpark(): void {
    if (this.#admission.size === 0) return;
    for (let work = this.#admission.next(); work !== undefined; work = this.#admission.next())
      this.#compete(work);
  }

  /** It has begun without a wait. */
  admit(work: Work): void {
    this.#admission.admit(work);
  }

  end(work: Work): void {
    this.#loads.end(work);
    if (this.#admission.end(work)) this.#unpark();
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
    this.#levels.remove(work);
    this.#admission.remove(work);
  }

  /** Charges the task that ran, which runs no more. */
  #settle(nowMs: number): void {
    const work = this.#running;
    this.#running = undefined;
    if (work === undefined) return;
    const us = (nowMs - this.#sinceMs) * 1_000;
    if (this.#isAhead) this.#aheadUs += us;
    this.#charge(work, us, Math.min(us, SLICE_US + STEP_MAX_US));
  }

  /** Whether work would wait for its turn now. */
  get isBusy(): boolean {
    return this.#levels.size > 0 || this.#turnUs >= this.#sliceUs;
  }

  /** Processor time of this thread that a task took outside of its slices: others have their turns first. */
  spend(work: Work, us: number): void {
    this.#charge(work, us);
  }

  /** Processor time that a task took, in whichever thread. */
  count(work: Work, us: number, usedUs = us): void {
    const { key, kind } = work;
    work.usedUs += usedUs;
    this.#loads.took(work);
    this.#usedUs.set(kind, (this.#usedUs.get(kind) ?? 0) + us);
    this.#ports.onUsed?.(key, us);
  }

  /** @param owedUs of that, what the work has used, and its subject and project owe to others. */
  #charge(work: Work, us: number, owedUs = us): void {
    this.#turnUs += us;
    this.#levels.charge(work, owedUs);
    this.count(work, us, owedUs);
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
      const nowMs = this.#ports.nowMs();
      this.#resuming = undefined;
      if (this.#running !== undefined) this.#settle(nowMs);
      const restUs = (nowMs - this.#turnMs) * 1_000 - (this.#turnUs - this.#carriedUs);
      const shortUs = Math.min(Math.max(restUs / 4, SHORT_SLICE_US.min), SHORT_SLICE_US.max);
      this.#sliceUs = nowMs < this.#shortUntilMs ? shortUs : SLICE_US;
      this.#carriedUs = this.#levels.size > 0 ? Math.min(this.#aheadUs, this.#sliceUs / 2) : 0;
      this.#turnUs = this.#carriedUs;
      this.#turnMs = nowMs;
      this.#aheadUs = 0;
      this.#refuseLate();
      this.#grantNext();
    });
  }

  #grantNext(): void {
    this.#holder = this.#levels.next(this.#sliceUs - this.#turnUs);
    if (this.#holder === undefined) return;
    this.#unbegun.delete(this.#holder);
    this.#slices++;
    // For what it leaves, or if it takes nothing.
    this.#awaitTurn();
    this.#holder.granted();
    this.#resuming = this.#holder;
  }
}

/** By itself: for commands and tests, where nobody else has work. */
export function ownWork(project = ''): OwnWork {
  const scheduler = new Scheduler();
  return (kind) => scheduler.background(project, kind);
}
