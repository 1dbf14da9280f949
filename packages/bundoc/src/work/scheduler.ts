import { type Account, Accounts } from '@bundoc/shared/admission/account';
import type { Pool } from '@bundoc/shared/admission/pool';
import { Turns } from '@bundoc/shared/admission/turns';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { LargeThread } from './large-thread.ts';
import { type OwnWork, Work, type WorkKind } from './work.ts';

/** Time that all long work of the process takes on the event loop's thread in one turn, at most. */
export const SLICE_US = 2_000;
/** The same while others have requests in the service: each of these may need several turns. */
const SHARED_SLICE_US = SLICE_US / 4;
/**
 * No step counts for more. What seems to take longer is garbage collection, or other processes. A subject
 * that pays for that would wait for seconds.
 */
const STEP_MAX_US = 5_000;
/**
 * Work of an account that has used less than all that wait runs so long ahead of their slice. The slice is
 * shorter by that, but at least half as long.
 */
export const AHEAD_US = SLICE_US / 2;
/** Up to so much is not worth a callback of its own: it is counted in whichever turn comes next. */
const FORGOTTEN_US = SLICE_US / 10;

export interface SchedulerDeps {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Calls back in the next turn of the event loop, after others were served. */
  readonly nextTurn: (run: () => void) => void;
  /** Whose turn it is. */
  readonly accounts: Accounts;
  /** Hears of all time that long work takes. */
  readonly onUsed?: (key: ShareKey, us: number) => void;
  /** Bytes of memory that work holds; no bound when it is absent. */
  readonly memory?: Room;
  /** Whether requests of others than this account's subject are in the service. */
  readonly isShared?: (account: Account) => boolean;
}

/** What long work needs of a pool, for which it does not wait. */
export type Room = Pick<Pool, 'tryTakeMore' | 'refusal'>;

/**
 * Shares the event loop's thread among all long work of the process: at most one slice of {@link SLICE_US} a
 * turn, for the account that has used least.
 *
 * Work is charged for the time that it runs on the thread, and waiting costs nothing. The processor time that
 * the system counts for a thread is no measure for slices: it moves by ticks of up to 4 ms.
 *
 * Work that fits into what is left of the slice, while nobody waits, runs at once.
 */
export class Scheduler implements AsyncDisposable {
  /** Works on what is too large for this thread. */
  readonly large: LargeThread;
  readonly #ports: SchedulerDeps;
  /** Work that waits for its turn. */
  readonly #waiting: Turns<Work>;
  readonly #usedUs = new Map<WorkKind, number>();
  /** What long work has taken of this turn, and what has run ahead of the next one. */
  #turnUs = 0;
  #aheadUs = 0;
  /** What all long work may take in this turn. */
  #sliceUs: number = SLICE_US;
  #isTurnComing = false;
  #slices = 0;
  /** The task that runs, since when it was charged for nothing, and until when it may run. */
  #running: Work | undefined;
  #sinceMs = 0;
  #untilMs = 0;
  #isAhead = false;
  /** Whose turn it is. */
  #holder: Work | undefined;
  /** The holder, until it pauses or leaves: its time counts from the grant. */
  #resuming: Work | undefined;

  constructor(ports: Partial<SchedulerDeps> = {}, large?: LargeThread) {
    const { accounts = new Accounts() } = ports;
    this.#ports = {
      ...{ nowMs: () => performance.now(), nextTurn: (run) => setImmediate(run), ...ports },
      accounts,
    };
    this.#waiting = new Turns(accounts);
    this.large = large ?? new LargeThread({}, accounts);
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

  /** The ports, for {@link Work} alone, as are the methods below. */
  get ports(): SchedulerDeps {
    return this.#ports;
  }

  /**
   * Whether a task may run on. It is the one that runs then; what the one before has taken is charged.
   */
  mayRun(work: Work): boolean {
    const nowMs = this.#ports.nowMs();
    if (this.#running === work && nowMs < this.#untilMs) return true;
    if (this.#resuming !== undefined && this.#resuming !== work) return false;
    this.#resuming = undefined;
    this.#settle(nowMs);
    const isNext = this.#holder === work || this.#waiting.size === 0;
    const ofTurnUs = isNext ? this.#sliceUs - this.#turnUs : 0;
    this.#isAhead = ofTurnUs <= 0;
    const leftUs = this.#isAhead && this.#mayGoAhead(work) ? AHEAD_US - this.#aheadUs : ofTurnUs;
    if (leftUs <= 0) return false;
    this.#running = work;
    this.#sinceMs = nowMs;
    this.#untilMs = nowMs + leftUs / 1_000;
    return true;
  }

  #mayGoAhead({ isOwn, account }: Work): boolean {
    return !isOwn && this.#waiting.size > 0 && this.#waiting.wouldBeNext(account);
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

  enqueue(work: Work): void {
    this.#waiting.add(work.account, work);
    this.#awaitTurn();
  }

  dequeue(work: Work): void {
    this.#waiting.remove(work.account, work);
  }

  /** Whether work would wait for its turn now. */
  get isBusy(): boolean {
    return this.#waiting.size > 0 || this.#turnUs >= this.#sliceUs;
  }

  /** Processor time that a task took, in whichever thread. */
  count({ key, kind }: Work, us: number): void {
    this.#usedUs.set(kind, (this.#usedUs.get(kind) ?? 0) + us);
    this.#ports.onUsed?.(key, us);
  }

  /** Charges the task that ran, which runs no more. */
  #settle(nowMs: number): void {
    const work = this.#running;
    this.#running = undefined;
    if (work === undefined) return;
    const us = (nowMs - this.#sinceMs) * 1_000;
    if (this.#isAhead) this.#aheadUs += us;
    this.spend(work, us, Math.min(us, SLICE_US + STEP_MAX_US));
  }

  /**
   * Charges processor time of this thread, also outside of the slices of a task.
   *
   * @param owedUs of that, what its account owes to others.
   */
  spend(work: Work, us: number, owedUs = us): void {
    this.#turnUs += us;
    this.#ports.accounts.charge(work.account, owedUs);
    this.count(work, us);
    // So little needs no turn of its own to be forgotten.
    if (this.#turnUs > FORGOTTEN_US) this.#awaitTurn();
  }

  #awaitTurn(): void {
    if (this.#isTurnComing) return;
    this.#isTurnComing = true;
    this.#ports.nextTurn(() => {
      this.#isTurnComing = false;
      this.#resuming = undefined;
      if (this.#running !== undefined) this.#settle(this.#ports.nowMs());
      const next = this.#waiting.peek();
      const isShared = next !== undefined && this.#ports.isShared?.(next.account) === true;
      this.#sliceUs = isShared ? SHARED_SLICE_US : SLICE_US;
      this.#turnUs = next === undefined ? 0 : Math.min(this.#aheadUs, this.#sliceUs / 2);
      this.#aheadUs = 0;
      this.#grantNext();
    });
  }

  #grantNext(): void {
    this.#holder = this.#waiting.peek();
    if (this.#holder === undefined) return;
    this.#waiting.take(this.#holder.account, this.#holder);
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
