import { ReadyQueues } from './ready-queues.ts';

/** The kinds of transactions: many projects with small commits, large commits, or a single project. */
export type LaneKind = 'small' | 'large' | 'alone';

/** Limits of one transaction in a lane; a single commit may exceed them. */
interface Lane {
  readonly projectsMax: number;
  readonly writesMax: number;
  readonly bytesMax: number;
}

/** The part of a waiting commit that lanes use. */
export interface LaneCommit {
  readonly writes: readonly unknown[];
  /** With its overhead. */
  readonly bytes: number;
  /** The subject whose share it uses. */
  readonly subject: string;
  /** The time of its arrival. */
  readonly queuedMs: number;
}

/** Commits of one project, in order. */
export interface LaneMember<P, C> {
  readonly project: P;
  readonly commits: readonly C[];
}

/** The content of one transaction. */
export interface LaneBatch<P, C> {
  readonly kind: LaneKind;
  readonly members: readonly LaneMember<P, C>[];
}

/** How a project leaves a transaction. */
export interface Leaving<C> {
  /** Commits that the transaction did not decide; they go first next time. */
  readonly left: readonly C[];
  /**
   * How the project's next transaction runs:
   * - `any`;
   * - `first`: the last one was full, so the project goes before all others;
   * - `contended`: another transaction holds its head, so it runs alone;
   * - `suspect`: the group failed, so it runs alone;
   * - `failed`: it failed alone, so it runs alone for a while.
   */
  readonly next: 'any' | 'first' | 'contended' | 'suspect' | 'failed';
}

const MIB = 1_048_576;
const LANES: Record<LaneKind, Lane> = {
  small: { projectsMax: 256, writesMax: 512, bytesMax: MIB },
  large: { projectsMax: 64, writesMax: 1_024, bytesMax: 8 * MIB },
  alone: { projectsMax: 1, writesMax: 1_024, bytesMax: 32 * MIB },
};
/**
 * Larger commits use the large lane, because the other commits of a transaction wait until their bytes are
 * sent.
 */
const SMALL_COMMIT = { bytes: 131_072, writes: 64 };
/**
 * A second small transaction begins once so many projects wait, while few wait or commit, or when the first
 * is stalled. A transaction has a cost of its own, for the node and for the server, and alone it takes more
 * commits. Few commits are answered sooner side by side.
 */
const SECOND_FROM = 64;
const FEW_PROJECTS = 8;
/** Time that a project which failed alone stays alone. */
export const FAILED_ALONE_MS = 60_000;
/** Time that a project stays alone after its head was contended twice within the same time. */
const CONTENDED_ALONE_MS = 1_000;
/** A commit that has waited this long is refused: its client no longer waits for the answer. */
export const QUEUED_MS_MAX = 30_000;

export type LaneSlots = Readonly<Record<LaneKind, number>>;

/** Concurrent transactions. With few connections, some stay free for reads. */
export function laneSlots(connectionsMax: number): LaneSlots {
  return {
    small: 2,
    large: connectionsMax < 10 ? 1 : 2,
    alone: Math.min(4, Math.max(1, Math.floor(connectionsMax / 4))),
  };
}

interface Queue<P, C> {
  readonly project: P;
  /** The subject of its first commit. */
  subject: string;
  commits: C[];
  isRunning: boolean;
  /** Must run alone in its next transaction. */
  isSuspect: boolean;
  /** Must run alone until this time. */
  aloneUntilMs: number;
  contendedMs: number;
}

/**
 * Assigns commits to transactions. A project is in one transaction at a time, and its commits stay in order.
 * Subjects take turns, as do the projects of a subject, both within a transaction and between transactions.
 */
export class CommitLanes<P extends object, C extends LaneCommit> {
  readonly #slots: LaneSlots;
  readonly #queues = new Map<P, Queue<P, C>>();
  readonly #ready: Readonly<Record<LaneKind, ReadyQueues<Queue<P, C>>>> = {
    small: new ReadyQueues(),
    large: new ReadyQueues(),
    alone: new ReadyQueues(),
  };
  readonly #running: Record<LaneKind, number> = { small: 0, large: 0, alone: 0 };
  /** Projects in small transactions. */
  #inSmall = 0;
  readonly #stalled = new Set<LaneBatch<P, C>>();

  constructor(slots: LaneSlots) {
    this.#slots = slots;
  }

  /** Projects that wait for a transaction. */
  get waiting(): number {
    return this.#ready.small.size + this.#ready.large.size + this.#ready.alone.size;
  }

  add(project: P, commit: C, nowMs: number): void {
    let queue = this.#queues.get(project);
    if (queue === undefined) {
      queue = {
        project,
        subject: commit.subject,
        commits: [],
        isRunning: false,
        isSuspect: false,
        aloneUntilMs: Number.NEGATIVE_INFINITY,
        contendedMs: Number.NEGATIVE_INFINITY,
      };
      this.#queues.set(project, queue);
    }
    queue.commits.push(commit);
    if (queue.commits.length === 1 && !queue.isRunning) this.#wait(queue, nowMs);
  }

  /** The next transaction; undefined while all lanes with waiting projects are busy. */
  take(): LaneBatch<P, C> | undefined {
    for (const kind of ['small', 'large', 'alone'] as const) {
      if (this.#running[kind] >= this.#slots[kind] || this.#ready[kind].size === 0) continue;
      if (kind === 'small' && this.#isWorthWaiting()) continue;
      const members = this.#fill(kind);
      if (kind === 'small') this.#inSmall += members.length;
      this.#running[kind]++;
      return { kind, members };
    }
    return undefined;
  }

  /** Whether the projects that wait for a small transaction should share it with those that follow. */
  #isWorthWaiting(): boolean {
    const waiting = this.#ready.small.size;
    if (waiting >= SECOND_FROM || waiting + this.#inSmall <= FEW_PROJECTS) return false;
    return this.#running.small > this.#stalled.size;
  }

  /** A small transaction takes unusually long, so that others no longer wait for its end. */
  stalls(batch: LaneBatch<P, C>): void {
    this.#stalled.add(batch);
  }

  /** Ends a transaction. @param leaving one for each of its members, in order. */
  end(batch: LaneBatch<P, C>, leaving: readonly Leaving<C>[], nowMs: number): void {
    const { kind, members } = batch;
    this.#stalled.delete(batch);
    this.#running[kind]--;
    if (kind === 'small') this.#inSmall -= members.length;
    const first: Queue<P, C>[] = [];
    for (const [at, { project }] of members.entries()) {
      const queue = this.#queues.get(project) as Queue<P, C>;
      const { left, next } = leaving[at] as Leaving<C>;
      queue.isRunning = false;
      queue.commits.unshift(...left);
      this.#judge(queue, next, nowMs);
      if (queue.commits.length === 0) continue;
      if (next === 'first') {
        queue.subject = (queue.commits[0] as C).subject;
        first.push(queue);
      } else this.#wait(queue, nowMs);
    }
    for (const [lane, queues] of Map.groupBy(first, (queue) => laneOf(queue, nowMs)))
      this.#ready[lane].addFirst(queues);
  }

  #wait(queue: Queue<P, C>, nowMs: number): void {
    queue.subject = (queue.commits[0] as C).subject;
    this.#ready[laneOf(queue, nowMs)].add(queue);
  }

  /** Forgets a project without waiting or running commits. */
  leave(project: P): void {
    this.#queues.delete(project);
  }

  /** Removes commits that have waited too long. */
  expired(nowMs: number): LaneMember<P, C>[] {
    const expired: LaneMember<P, C>[] = [];
    for (const ready of Object.values(this.#ready))
      for (const queue of [...ready]) {
        // Commits are in the order of arrival.
        if ((queue.commits[0] as C).queuedMs + QUEUED_MS_MAX > nowMs) continue;
        const commits = queue.commits.filter(({ queuedMs }) => queuedMs + QUEUED_MS_MAX <= nowMs);
        queue.commits = queue.commits.filter((commit) => !commits.includes(commit));
        // The first commit decides the lane, so the queue is added again.
        ready.remove([queue]);
        if (queue.commits.length > 0) this.#wait(queue, nowMs);
        expired.push({ project: queue.project, commits });
      }
    return expired;
  }

  #judge(queue: Queue<P, C>, next: Leaving<C>['next'], nowMs: number): void {
    queue.isSuspect = next === 'suspect' || next === 'contended';
    if (next === 'failed') queue.aloneUntilMs = nowMs + FAILED_ALONE_MS;
    if (next !== 'contended') return;
    if (queue.contendedMs + CONTENDED_ALONE_MS > nowMs)
      queue.aloneUntilMs = Math.max(queue.aloneUntilMs, nowMs + CONTENDED_ALONE_MS);
    queue.contendedMs = nowMs;
  }

  /**
   * Takes a commit of each subject in turn until the transaction is full, so that no subject can fill it
   * alone.
   */
  #fill(kind: LaneKind): LaneMember<P, C>[] {
    const { projectsMax, writesMax, bytesMax } = LANES[kind];
    const taken = new Map<Queue<P, C>, number>();
    let [writes, bytes] = [0, 0];
    this.#ready[kind].inTurn(projectsMax, (queue) => {
      const at = taken.get(queue) ?? 0;
      const commit = queue.commits[at];
      if (commit === undefined || (kind === 'small' && !isSmall(commit))) return false;
      const isFull =
        (at === 0 && taken.size === projectsMax) ||
        writes + commit.writes.length > writesMax ||
        bytes + commit.bytes > bytesMax;
      if (isFull && taken.size > 0) return false;
      writes += commit.writes.length;
      bytes += commit.bytes;
      taken.set(queue, at + 1);
      return true;
    });
    return Array.from(taken, ([queue, count]) => {
      queue.isRunning = true;
      return { project: queue.project, commits: queue.commits.splice(0, count) };
    });
  }
}

function laneOf<P, C extends LaneCommit>(queue: Queue<P, C>, nowMs: number): LaneKind {
  if (queue.isSuspect || queue.aloneUntilMs > nowMs) return 'alone';
  return isSmall(queue.commits[0] as C) ? 'small' : 'large';
}

function isSmall({ bytes, writes }: LaneCommit): boolean {
  return bytes <= SMALL_COMMIT.bytes && writes.length <= SMALL_COMMIT.writes;
}
