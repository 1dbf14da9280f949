import { setTimeout as sleep } from 'node:timers/promises';
import { type Account, Accounts } from '@bundoc/shared/admission/account';
import type { Pool } from '@bundoc/shared/admission/pool';
import { Turns } from '@bundoc/shared/admission/turns';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { LargeThread } from './large-thread.ts';
import { type OwnWork, Work, type WorkKind } from './work.ts';

/** Longest time that all long work together takes in one turn of the event loop, microseconds. */
export const SLICE_US = 2_000;
/** The same while other subjects have requests in the service: each of these may need several turns. */
const SHARED_SLICE_US = SLICE_US / 4;
/**
 * Longest time that one step is charged for. A longer step was interrupted by garbage collection or by other
 * processes. A subject that paid for that would wait for seconds.
 */
const STEP_MAX_US = 5_000;
/**
 * An account that has used less than all waiting accounts may run this long before their slice. The slice
 * becomes shorter by this time, but not shorter than half.
 */
export const AHEAD_US = SLICE_US / 2;
/** Work that took no more than this schedules no callback. Its time counts in the next turn that comes. */
const FORGOTTEN_US = SLICE_US / 10;

export interface SchedulerDeps {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Calls back in the next turn of the event loop, after others were served. */
  readonly nextTurn: (run: () => void) => void;
  /** Resolves after so many milliseconds. */
  readonly rest: (ms: number) => Promise<void>;
  /** They decide whose turn is next. */
  readonly accounts: Accounts;
  /** Receives all processor time that long work takes, microseconds. */
  readonly onUsed?: (key: ShareKey, us: number) => void;
  /** Bytes of memory that work holds; no bound when it is absent. */
  readonly memory?: Room;
  /** Whether other subjects than this account's have requests in the service. */
  readonly isShared?: (account: Account) => boolean;
}

/** The part of a pool that long work uses. It never waits for units. */
export type Room = Pick<Pool, 'tryTakeMore' | 'refusal'>;

/**
 * Shares the event loop's thread among all long work of the process. Each turn of the event loop has at most
 * one slice of {@link SLICE_US}, for the account that has used least.
 *
 * Work is charged for the elapsed time while it runs; waiting costs nothing. The processor time that the
 * system counts for a thread is too coarse for slices: it advances in ticks of up to 4 ms.
 *
 * While nobody waits, work that fits into the rest of the slice runs at once.
 */
export class Scheduler implements AsyncDisposable {
  /** Works on documents that are too large for this thread. */
  readonly large: LargeThread;
  readonly #ports: SchedulerDeps;
  /** Work that waits for its turn. */
  readonly #waiting: Turns<Work>;
  readonly #usedUs = new Map<WorkKind, number>();
  /** Time that long work has taken in this turn, and time that it has run ahead of the next turn. */
  #turnUs = 0;
  #aheadUs = 0;
  /** Time that all long work may take in this turn. */
  #sliceUs: number = SLICE_US;
  #isTurnComing = false;
  #slices = 0;
  /** The running task, the start of the time that is not yet charged to it, and the end of its slice. */
  #running: Work | undefined;
  #sinceMs = 0;
  #untilMs = 0;
  #isAhead = false;
  /** The task whose turn it is. */
  #holder: Work | undefined;
  /** The holder, from its grant until it pauses or leaves. Its time counts from the grant. */
  #resuming: Work | undefined;

  constructor(ports: Partial<SchedulerDeps> = {}, large?: LargeThread) {
    const { accounts = new Accounts() } = ports;
    this.#ports = {
      nowMs: () => performance.now(),
      nextTurn: (run) => setImmediate(run),
      rest: (ms) => sleep(ms),
      ...ports,
      accounts,
    };
    this.#waiting = new Turns(accounts);
    this.large = large ?? new LargeThread({}, accounts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.large[Symbol.asyncDispose]();
  }

  /**
   * A piece of long work. It must call {@link Work.pause} before its first step. It may take
   * {@link WORK_MS_MAX}; work of the service itself has no limit.
   *
   * @param signal ends a wait with its reason at once.
   */
  work(key: ShareKey, kind: WorkKind, signal?: AbortSignal): Work {
    return new Work(this, key, kind, signal);
  }

  /** Work of the service itself. @param project empty for work that belongs to no project. */
  background(project: string, kind: WorkKind): Work {
    return this.work({ subject: '', project }, kind);
  }

  /** Number of slices that were granted after a wait. */
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

  /** Only {@link Work} uses the ports and the methods below. */
  get ports(): SchedulerDeps {
    return this.#ports;
  }

  /**
   * Whether a task may run. If so, it becomes the running task. The task before it is charged.
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

  /** The holder continues. Time that others took since the grant counts for the turn, not for the holder. */
  resumed(work: Work): void {
    if (this.#resuming !== work || this.#running !== work) return;
    const nowMs = this.#ports.nowMs();
    this.#turnUs += (nowMs - this.#sinceMs) * 1_000;
    this.#sinceMs = nowMs;
  }

  /** A task ends its slice. Others get the rest of it. */
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

  /** Counts processor time of a task in any thread. */
  count({ key, kind }: Work, us: number): void {
    this.#usedUs.set(kind, (this.#usedUs.get(kind) ?? 0) + us);
    this.#ports.onUsed?.(key, us);
  }

  /** Ends the running task and charges it. */
  #settle(nowMs: number): void {
    const work = this.#running;
    this.#running = undefined;
    if (work === undefined) return;
    const us = (nowMs - this.#sinceMs) * 1_000;
    if (this.#isAhead) this.#aheadUs += us;
    this.spend(work, us, Math.min(us, SLICE_US + STEP_MAX_US));
  }

  /**
   * Charges processor time of this thread. A task may take it outside of its slices, too.
   *
   * @param owedUs the part of it that its account owes to others.
   */
  spend(work: Work, us: number, owedUs = us): void {
    this.#turnUs += us;
    this.#ports.accounts.charge(work.account, owedUs);
    this.count(work, us);
    // A shorter time is not worth a callback.
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
    // The next turn serves the others, even if the holder leaves at once.
    this.#awaitTurn();
    this.#holder.granted();
    this.#resuming = this.#holder;
  }
}

/** Work with a scheduler of its own, for commands and tests. */
export function ownWork(project = ''): OwnWork {
  const scheduler = new Scheduler();
  return (kind) => scheduler.background(project, kind);
}
