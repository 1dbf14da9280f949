import type { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { CHUNK_BYTES, FRAME_BODY_BYTES_MAX, type FramePlace, type Place } from './layout.ts';
import type { FoundBirth } from './log-content.ts';
import type { BirthText, PartKeys } from './part-seal.ts';
import type { PartReader } from './parts.ts';
import type { LogDisk, LogObserver } from './ports.ts';
import type { SegmentLimits } from './segments.ts';

export interface LogLimits extends SegmentLimits {
  /** Bodies of one frame. */
  readonly frameBytes: number;
  /** A longer commit is sealed in chunks of this length. */
  readonly chunkBytes: number;
}

export const SEGMENT_BYTES = 16_777_216;
const SEGMENTS_MIN = 4;

/** @param bytes that the log may take, `BUNDOC_LOG_BYTES`. */
export function logLimits(bytes: number): LogLimits {
  return {
    segmentBytes: SEGMENT_BYTES,
    segmentsMin: SEGMENTS_MIN,
    segmentsMax: Math.max(SEGMENTS_MIN, Math.floor(bytes / SEGMENT_BYTES)),
    frameBytes: FRAME_BODY_BYTES_MAX,
    chunkBytes: CHUNK_BYTES,
  };
}

export interface LogOptions {
  readonly disk: LogDisk;
  /** `data/log`; its parent exists. */
  readonly directory: string;
  readonly storageId: Buffer;
  readonly limits: LogLimits;
  /** True when the storage had a log before: if there is none, it was lost. */
  readonly mustExist: boolean;
  readonly observer?: LogObserver;
  /**
   * Awaited before the header of each new segment is written. When it rejects, the data folder is another's:
   * nothing more is written, and the log ends. {@link LogObserver.onLost} says so.
   */
  readonly beforeSegment?: () => Promise<void>;
  readonly clock?: Clock;
  /**
   * Who writes: asked whenever a project has something to write. LogTurns are taken by it, and then by
   * project.
   */
  readonly writer?: () => string;
  /** Resolves after so many milliseconds; rejects when the signal aborts. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<unknown>;
}

/** What is read of a log, whether it is written to or not. */
export interface ReadableLog {
  /** Handles that the log has parts of. */
  readonly handles: IterableIterator<string>;
  /** Parts of handles whose own folders failed. */
  readonly stuck: StuckFiles;
  /** The newest part of a handle that the log knows of. */
  newest(handle: string): Place | undefined;
  /** Whether a handle has parts that nothing else has. */
  isUncovered(handle: string): boolean;
  /**
   * Whether a handle may have lost its last parts: frames of unknown projects are lost, and nothing later is
   * known of this handle.
   *
   * @param covered what its catalog covers, or the last of its carried parts when that is later.
   */
  isDoubtful(handle: string, covered: FramePlace | undefined): boolean;
  /** Reads parts; dispose of it soon, since it keeps freed segments from being used again. */
  reader(): PartReader;
  /**
   * The births that the log has, with what they have in the clear. A birth that cannot be read is left out:
   * its handle fails at its opening.
   */
  births(): AsyncGenerator<FoundBirth>;
}

/** Carried files in the log's own folder. */
export interface StuckFiles {
  /** Handles that have parts here. Their projects are damaged until the parts are back in their folders. */
  readonly handles: ReadonlySet<string>;
  /** The carried files of a handle. */
  read(handle: string): Promise<Buffer[]>;
}

/** What a project has for the next frame. */
export interface TakenPart {
  readonly kind: 'data' | 'birth' | 'gone';
  /** Of a birth at most `chunkBytes`. Empty for `gone`. */
  readonly plaintext: readonly Buffer[];
  /** The version of the DEK to seal under; 0 for `gone`. */
  readonly keyVersion: number;
  readonly birth?: BirthText;
  readonly commits: number;
  /**
   * The part is durable. Called in the turn in which that is known, before anything else is taken from any
   * project.
   */
  durable(place: Place): void;
  /**
   * Called after {@link durable}, once the next frame is on its way to the disk or there is none: the time to
   * answer.
   */
  answer(): void;
  /** The part is certainly not durable, and never will be. */
  refused(error: AppError): void;
  /** The process ends before it is known whether the part is durable: nothing may be answered. */
  unknown(error: AppError): void;
}

/**
 * A project that writes into the log. Its methods must neither call the log nor throw; nor may those of
 * {@link TakenPart}.
 */
export interface PartSource {
  readonly handle: string;
  readonly project: string;
  readonly keys: PartKeys;
  /** True while a commit waits that makes room: one of deletes alone. */
  readonly makesRoom: boolean;
  /**
   * Decides and seals what waits, for one part of the next frame; at least one commit, and no second one that
   * would exceed `bytesMax`.
   *
   * @param onlyMakingRoom whether only commits that make room may be taken.
   * @returns undefined when nothing waits.
   */
  take(bytesMax: number, onlyMakingRoom: boolean): TakenPart | undefined;
  /** Refuses all that waits, but for what makes room when the code is `disk_full`. */
  refuse(error: AppError): void;
}

/** What was in the log of a handle at a moment. */
export interface LogMark {
  readonly place: Place;
  readonly bytes: number;
}

/** A project's end of the log. */
export interface AttachedHandle {
  /** Something waits. May be called at any time, and again. */
  ready(): void;
  /** The same, for the one that was ready before: it may be called on behalf of another subject. */
  again(): void;
  /** The last part that a snapshot taken now covers; undefined when there is none. */
  mark(): LogMark | undefined;
  /** Ends writing. Nothing may be on its way. */
  detach(): void;
}

/** Puts files of carried parts into the folders of projects. */
export interface CarryTarget {
  /** @returns for each file undefined once it is durable, or why its folder fails. */
  write(files: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]>;
}

export interface CarriedContent {
  readonly handle: string;
  readonly segment: number;
  readonly content: Buffer;
}

export interface LogStats {
  readonly segmentsLive: number;
  readonly segmentsFree: number;
  readonly uncoveredBytes: number;
  readonly handles: number;
  readonly frames: number;
  readonly commits: number;
  readonly cuts: number;
  readonly carries: number;
  readonly stuckHandles: number;
  readonly suspectFrames: number;
  readonly holes: number;
  readonly writesStopped: boolean;
}
