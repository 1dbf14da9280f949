import { setImmediate, setTimeout } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { BLOCK_BYTES } from './layout.ts';
import type { LogOptions } from './log-api.ts';
import type { LogContent } from './log-content.ts';
import { type Attached, LogTurns, type Sending } from './log-turns.ts';
import type { LogScan } from './scan.ts';
import { withPart } from './scan-frames.ts';
import { type ActiveSegment, SegmentWriter } from './segment-writer.ts';
import { isFull, type Segments } from './segments.ts';

const RETRY_MS = 1_000;
/** Maximum wait for space in the log, the same as for other shared limits. */
const WAIT_MS_MAX = 5_000;

/**
 * Writes waiting parts, frame by frame. One frame is in flight at a time, so only the last one can be torn. A
 * failed write cuts the log: a new segment states that the failed frame never happened.
 *
 * One class, because frames, cuts and stops change one state of the log's end.
 */
export class LogWriter {
  readonly #options: LogOptions;
  readonly #clock: Clock;
  readonly #segments: Segments;
  readonly #content: LogContent;
  readonly #stopping = new AbortController();
  readonly #toAnswer: Pick<Sending, 'attached' | 'part'>[] = [];
  readonly turns: LogTurns;
  readonly segment: SegmentWriter;
  readonly counts = { frames: 0, commits: 0, cuts: 0 };
  #state: 'open' | 'stopped' | 'lost' | 'closed' = 'open';
  #pumping: Promise<void> | undefined;
  #resuming: Promise<void> | undefined;
  /** Number of callers that wait for a pause between frames. */
  #pausing = 0;
  #growAgainMs = Number.NEGATIVE_INFINITY;
  #isTryingAgain = false;
  /** Whether a timer for held sources is running. */
  #isWatching = false;

  /** @param buffer in which frames are composed. */
  constructor(
    options: LogOptions,
    buffer: Buffer,
    scan: Pick<LogScan, 'tail' | 'live' | 'firstLive'>,
    segments: Segments,
    content: LogContent,
  ) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#segments = segments;
    this.#content = content;
    this.turns = new LogTurns(options, segments, content.index);
    this.segment = new SegmentWriter(options, buffer, scan, segments, content, {
      onBegun: (isReserve) => {
        if (isReserve) return;
        this.turns.forgetReserve();
        this.retryHeld();
      },
      onFreed: () => this.retryHeld(),
      onLost: (error) => this.#lose(error),
    });
  }

  get isStopped(): boolean {
    return this.#state === 'stopped' || this.#state === 'lost';
  }

  /** @throws AppError `storage_unavailable` when writes are impossible. */
  requireOpen(): void {
    if (this.#state !== 'open') throw new AppError('storage_unavailable', { retryAfterS: 1 });
  }

  /** Called when a project has something to write. */
  ready(attached: Attached): void {
    if (this.#state !== 'open') {
      attached.source.refuse(new AppError('storage_unavailable', { retryAfterS: 1 }));
      return;
    }
    if (this.turns.join(attached)) this.#pumping ??= this.#pump();
  }

  /** Queues the held sources again. */
  retryHeld(): void {
    if (this.#state === 'open' && this.turns.unholdAll()) this.#pumping ??= this.#pump();
  }

  /** Refuses sources that wait for a segment, because none can be freed. */
  refuseHeld(error: AppError): void {
    for (const attached of this.turns.refuseHeld(error)) this.ready(attached);
  }

  /**
   * Runs `work` between two frames.
   *
   * @throws AppError `storage_unavailable` when the log is not open.
   */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    this.#pausing++;
    try {
      while (this.#pumping !== undefined) await this.#pumping;
    } finally {
      this.#pausing--;
    }
    this.requireOpen();
    const working = work();
    const goOn = () => {
      this.#pumping = undefined;
      if (this.turns.isAnyoneWaiting) this.#pumping = this.#pump();
    };
    this.#pumping = working.then(goOn, goOn);
    return working;
  }

  /** Ends writing. Waiting commits are refused. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    const wasOpen = this.#state === 'open';
    this.#state = 'closed';
    this.#stopping.abort();
    this.turns.refuseAll(new AppError('storage_unavailable'));
    await this.#pumping;
    await this.#resuming;
    await (wasOpen ? this.segment.end() : this.segment.close());
  }

  /** Writes frames until no source waits. Rejects only because of a defect. */
  async #pump(): Promise<void> {
    // Collects commits of the same turn of the event loop in one frame.
    await setImmediate();
    while (this.turns.isAnyoneWaiting && this.#state === 'open' && this.#pausing === 0) {
      const { active } = this.segment;
      const hasRoom = (this.segment.hasRoom && active?.isReserve === false) || (await this.#secureRoom());
      if (!hasRoom) continue;
      const present = this.segment.active as ActiveSegment;
      const group = this.turns.take(this.segment.bodyBytesLeft(present, 1), present.isReserve);
      this.#watchHeld();
      if (group.length > 0) await this.#write(present, group);
    }
    this.#answer();
    this.#watchHeld();
    // Synchronous after the last check, so that a source that becomes ready now starts the pump again.
    this.#pumping = undefined;
  }

  #answer(): void {
    for (const { attached, part } of this.#toAnswer.splice(0)) tell(attached, () => part.answer());
  }

  /**
   * Finds space for the next frame before anything is taken or sealed for it. Without space, waiting sources
   * are held or refused.
   *
   * @returns whether there is space.
   */
  async #secureRoom(): Promise<boolean> {
    this.#answer();
    const segments = this.#segments;
    const full = await this.#growIfNeeded();
    const { active, hasRoom } = this.segment;
    if (active?.isReserve === true && segments.isReserveWhole) active.isReserve = false;
    if (hasRoom && active?.isReserve === false) return true;
    const path = segments.take(false);
    if (path !== undefined) return this.#rotateTo(path, false);
    this.#options.observer?.onPressure?.(undefined);
    this.turns.holdOrRefuse(full);
    if (full !== undefined) this.#tryAgain();
    if (!this.turns.isAnyoneWaiting) return false;
    if (hasRoom) return true;
    const reserved = segments.take(true);
    if (reserved !== undefined) return this.#rotateTo(reserved, true);
    this.turns.refuseAll(full ?? new AppError('disk_full'));
    return false;
  }

  /**
   * Schedules a retry on a full disk. If only deletes wait, no other write would detect that there is space
   * again.
   */
  #tryAgain(): void {
    if (this.#isTryingAgain) return;
    this.#isTryingAgain = true;
    const { signal } = this.#stopping;
    const done = () => {
      this.#isTryingAgain = false;
      this.retryHeld();
    };
    this.#wait(RETRY_MS, signal).then(done, done);
  }

  /** Refuses held sources after {@link WAIT_MS_MAX}. */
  #watchHeld(): void {
    if (this.#isWatching || !this.turns.isAnyoneHeld) return;
    const sinceMs = this.turns.heldSinceMs ?? this.#clock.monotonic();
    this.#isWatching = true;
    const done = () => {
      this.#isWatching = false;
      if (this.#state === 'closed') return;
      this.turns.refuseHeldSince(this.#clock.monotonic() - WAIT_MS_MAX);
      this.#watchHeld();
    };
    const { signal } = this.#stopping;
    this.#wait(Math.max(1, sinceMs + WAIT_MS_MAX - this.#clock.monotonic()), signal).then(done, done);
  }

  #wait(ms: number, signal: AbortSignal): Promise<unknown> {
    const { wait = (some, of) => setTimeout(some, undefined, { signal: of, ref: false }) } = this.#options;
    return wait(ms, signal);
  }

  /** @returns why no segment can be created, when the disk is full. */
  async #growIfNeeded(): Promise<AppError | undefined> {
    const segments = this.#segments;
    if (!segments.mayGrow || segments.hasUnreserved) return undefined;
    const nowMs = this.#clock.monotonic();
    if (nowMs < this.#growAgainMs) return new AppError('disk_full');
    try {
      // Creates a second one when the reserve is incomplete.
      while (segments.mayGrow && !segments.hasUnreserved) await segments.grow();
      return undefined;
    } catch (error) {
      this.#growAgainMs = nowMs + RETRY_MS;
      return isFull(error) ? (error as AppError) : new AppError('storage_unavailable', { cause: error });
    }
  }

  async #rotateTo(path: string, isReserve: boolean): Promise<boolean> {
    await this.segment.close();
    if (await this.segment.tryBegin(path, isReserve)) return true;
    return (await this.segment.beginSomewhere()) || this.#stop([]);
  }

  async #write(active: ActiveSegment, group: readonly Sending[]): Promise<void> {
    const sealed = this.segment.seal(active, group);
    const startMs = this.#clock.monotonic();
    try {
      const written = active.file.writeDurably(sealed.number * BLOCK_BYTES, sealed.frame);
      this.#answer();
      await written;
    } catch (error) {
      await this.#cut(group, error);
      return;
    }
    this.segment.keep(active, sealed);
    const tags = sealed.directory.map(({ tag }) => tag);
    const commits = this.#publish(active, sealed.number, group, tags);
    this.counts.frames++;
    this.counts.commits += commits;
    const seconds = (this.#clock.monotonic() - startMs) / 1_000;
    this.#options.observer?.onFrame?.(commits, sealed.frame.length, seconds);
  }

  #publish(active: ActiveSegment, frame: number, group: readonly Sending[], tags: readonly Buffer[]): number {
    const { index } = this.#content;
    let commits = 0;
    for (const [at, { attached, part, kind, bytes, plaintext, isLast }] of group.entries()) {
      const { handle } = attached.source;
      const place = { segment: active.number, frame, tag: tags[at] as Buffer };
      withPart(active.index, { handle, kind, bytes }, place);
      attached.newest = place;
      if (kind === 'gone') index.remove(handle);
      else index.append(handle, place, bytes);
      if (active.isReserve) attached.reserveBytes += bytes;
      if (!isLast) {
        this.turns.sent(attached, plaintext[0]?.length ?? 0);
        continue;
      }
      attached.large = undefined;
      commits += part.commits;
      const fault = tell(attached, () => part.durable(place));
      if (fault === undefined) this.#toAnswer.push({ attached, part });
      else part.unknown(fault);
    }
    return commits;
  }

  /**
   * Handles a failed write of a frame. Any part of the frame may be on the disk. A new segment states that
   * the frame never happened. Until this is durable, nothing else is written. After it, the commits of the
   * frame are refused.
   */
  async #cut(group: readonly Sending[], error: unknown): Promise<void> {
    this.counts.cuts++;
    this.#options.observer?.onCut?.(error);
    for (const { attached } of group) attached.large = undefined;
    await this.segment.close();
    if (await this.segment.beginSomewhere()) refuseGroup(group, error);
    else this.#stop(group, error);
  }

  /** Stops writing until a segment can begin. */
  #stop(group: readonly Sending[], error?: unknown): false {
    if (this.#state !== 'open') {
      for (const { part } of group) part.unknown(new AppError('storage_unavailable', { cause: error }));
      return false;
    }
    this.#state = 'stopped';
    this.#options.observer?.onStopped?.(error);
    this.turns.refuseAll(new AppError('storage_unavailable', { cause: error, retryAfterS: 1 }));
    this.#resuming = this.#resume(group, error);
    return false;
  }

  /** Ends the log for good: another process holds the data folder. */
  #lose(error: unknown): void {
    this.#state = 'lost';
    this.#stopping.abort();
    this.turns.refuseAll(new AppError('storage_unavailable', { cause: error }));
    this.#options.observer?.onLost?.(error);
  }

  async #resume(group: readonly Sending[], error: unknown): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.#wait(RETRY_MS, signal).catch(() => undefined);
      if (signal.aborted) break;
      if (!(await this.segment.beginSomewhere())) continue;
      refuseGroup(group, error);
      if (this.#state === 'stopped') this.#state = 'open';
      this.retryHeld();
      this.#options.observer?.onResumed?.();
      return;
    }
    for (const { part } of group) part.unknown(new AppError('storage_unavailable', { cause: error }));
  }
}

/**
 * Tells a source that its part is durable. When that throws, only this source fails. Other projects with
 * parts in the frame continue.
 *
 * @returns what was thrown.
 */
function tell({ source }: Attached, what: () => void): AppError | undefined {
  try {
    what();
    return undefined;
  } catch (error) {
    source.fail(error);
    return new AppError('storage_unavailable', { cause: error });
  }
}

function refuseGroup(group: readonly Sending[], cause: unknown): void {
  const error = new AppError('storage_unavailable', { cause, retryAfterS: 1 });
  for (const { part } of group) part.refused(error);
}
