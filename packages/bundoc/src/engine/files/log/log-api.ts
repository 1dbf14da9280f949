import type { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { CHUNK_BYTES, FRAME_BODY_BYTES_MAX, type FramePlace, type Place } from './layout.ts';
import type { PartKeys } from './part-seal.ts';
import type { PartReader } from './parts.ts';
import type { LogDisk, LogObserver } from './ports.ts';
import type { SegmentLimits } from './segments.ts';

export interface LogLimits extends SegmentLimits {
  /** Maximum bytes of bodies in one frame. */
  readonly frameBytes: number;
  /** A longer commit is sealed in chunks of this length. */
  readonly chunkBytes: number;
}

/** The folder of the log, below the data folder. */
export const LOG_FOLDER = 'log';
export const SEGMENT_BYTES = 16_777_216;
const SEGMENTS_MIN = 4;

/** @param bytes maximum size of the log, `BUNDOC_LOG_BYTES`. */
export function logLimits(bytes: number): LogLimits {
  return {
    segmentBytes: SEGMENT_BYTES,
    segmentsMin: SEGMENTS_MIN,
    segmentsMax: Math.max(SEGMENTS_MIN, Math.floor(bytes / SEGMENT_BYTES)),
    frameBytes: FRAME_BODY_BYTES_MAX,
    chunkBytes: CHUNK_BYTES,
  };
}

/** A segment of the log, as far as its syncs have succeeded. */
export interface ShippableSegment {
  readonly number: number;
  /** 16 bytes. */
  readonly id: Buffer;
  readonly path: string;
  /** The block of its first frame. */
  readonly firstFrame: number;
  /** Its last frame; undefined when it has none. */
  readonly lastFrame: number | undefined;
}

/** The log as far as it may be shipped. */
export interface LogEnd {
  /** Segments in order: those from the asked one on, also freed ones whose content is still there. */
  readonly segments: readonly ShippableSegment[];
  /** The first live segment, as the newest header has it. */
  readonly firstLive: number;
}

export interface LogOptions {
  readonly disk: LogDisk;
  /** `data/log`; its parent exists. */
  readonly directory: string;
  readonly storageId: Buffer;
  readonly limits: LogLimits;
  /** True when the storage has had a log: a missing one was lost. */
  readonly mustExist: boolean;
  readonly observer?: LogObserver;
  /** The first segment that the archive may lack; undefined without an archive. */
  readonly keepFrom?: number | undefined;
  /**
   * Awaited before the header of each new segment is written. When it rejects, another process holds the data
   * folder. Then nothing more is written, the log ends, and {@link LogObserver.onLost} is called.
   */
  readonly beforeSegment?: () => Promise<void>;
  readonly clock?: Clock;
  /**
   * Returns the subject that writes; called whenever a project has something to write. It shares a nearly
   * full log with other subjects.
   */
  readonly writer?: () => string;
  /** Resolves after this many milliseconds; rejects when the signal aborts. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<unknown>;
}

/** The reading interface of a log, open for writing or not. */
export interface ReadableLog {
  /** Handles with parts in the log. */
  readonly handles: IterableIterator<string>;
  /** Parts of handles whose own folders failed. */
  readonly stuck: StuckFiles;
  /** The newest known part of a handle. */
  newest(handle: string): Place | undefined;
  /** Whether a handle has parts that exist only in the log. */
  isUncovered(handle: string): boolean;
  /**
   * Whether a handle may have lost its last parts: frames of unknown projects are lost, and no later part of
   * this handle is known.
   *
   * @param covered what its catalog covers, or the last of its carried parts when that is later.
   */
  isDoubtful(handle: string, covered: FramePlace | undefined): boolean;
  /** Reads parts. Dispose of it soon, because it keeps freed segments from being reused. */
  reader(): PartReader;
}

/** Carried files in the log's own folder. */
export interface StuckFiles {
  /** Handles with parts here. Their projects are damaged until the parts are back in their folders. */
  readonly handles: ReadonlySet<string>;
  /** The carried files of a handle. */
  read(handle: string): Promise<Buffer[]>;
}

/** A project's part of the next frame. */
export interface TakenPart {
  readonly kind: 'data' | 'gone';
  /** Empty for `gone`. */
  readonly plaintext: readonly Buffer[];
  /** The version of the DEK that seals it; 0 for `gone`. */
  readonly keyVersion: number;
  readonly commits: number;
  /**
   * The part is durable. Called synchronously when that is known, before anything else is taken from any
   * project. When it throws, the source fails.
   */
  durable(place: Place): void;
  /**
   * Tells the source to answer its clients. Called after {@link durable}, once the next frame is being
   * written or there is none.
   */
  answer(): void;
  /** The part is certainly not durable, and never will be. */
  refused(error: AppError): void;
  /**
   * The process ends before the outcome of the part is known, or the source has failed although the part is
   * durable: the source must not answer.
   */
  unknown(error: AppError): void;
}

/**
 * A project that writes into the log. Its methods must not call the log or throw; nor may those of {@link
 * TakenPart}, except `durable` and `answer`.
 */
export interface PartSource {
  readonly handle: string;
  readonly project: string;
  readonly keys: PartKeys;
  /** True while a commit waits that frees space: one with only deletes. */
  readonly makesRoom: boolean;
  /** Approximate bytes of the commit that {@link take} takes first; undefined when it can take none. */
  readonly nextBytes: number | undefined;
  /**
   * Plans and seals waiting commits as one part of the next frame: at least one commit, and more only within
   * `bytesMax`.
   *
   * @param onlyMakingRoom whether to take only commits that free space.
   * @returns undefined when no commit waits.
   */
  take(bytesMax: number, onlyMakingRoom: boolean): TakenPart | undefined;
  /** Refuses all waiting commits, except those that free space when the code is `disk_full`. */
  refuse(error: AppError): void;
  /**
   * Ends the source, because {@link TakenPart.durable} or {@link TakenPart.answer} has thrown. What the
   * source shows may lack durable commits.
   */
  fail(error: unknown): void;
}

/** The extent of a handle's parts in the log at one moment. */
export interface LogMark {
  readonly place: Place;
  readonly bytes: number;
}

/** A project's connection to the log. */
export interface AttachedHandle {
  /** Reports waiting commits. May be called at any time, repeatedly. */
  ready(): void;
  /** {@link ready} for the same subject as before, because another subject may be the current caller. */
  again(): void;
  /** The last part that a snapshot taken now covers; undefined when there is none. */
  mark(): LogMark | undefined;
  /** Ends writing. No part may be in progress. */
  detach(): void;
}

/** Writes files of carried parts into the folders of projects. */
export interface CarryTarget {
  /** @returns for each file undefined once it is durable, or why its folder fails. */
  write(files: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]>;
}

/** Handles whose parts are in the log's own folder, because the folders of their projects failed, and why. */
export type FailedHandles = ReadonlyMap<string, Error>;

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
