import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { Clock } from '@bundoc/shared/runtime/clock';
import {
  formatStorageFile,
  parseStorageFile,
  STORAGE_FILE,
  storageIdMissing,
  withoutGeneration,
} from '../../identity/storage-file.ts';
import { SMALL_FILE_BYTES_MAX } from '../../projects/project-file.ts';
import type { FramePlace } from '../log/layout.ts';
import type { LogEnd } from '../log/log-api.ts';
import { type AddedBases, BaseQueue } from './base-queue.ts';
import { BaseReader, type ReadingDisk } from './base-reader.ts';
import { highestN, numberFrom } from './lineage.ts';
import { addFrames, isContinued } from './log-reader.ts';
import { ObjectBuilder, objectKey } from './object.ts';
import { type ArchivePosition, type PositionStore, shippedObject } from './position.ts';
import { ProjectChanges } from './project-changes.ts';

/** An object ends behind the record that takes it to this size. Bases leave room for frames. */
const OBJECT_BYTES = 8_388_608;
/** When there is nothing to ship, an object shows that the archive is alive. */
const IDLE_MS = 60_000;
/** Handles of interrupted creations never get a base. */
const ARRIVALS_MAX = 10_000;
/** A round begins after this time, or after so many bytes of frames. */
const ROUND_MS = 86_400_000;
const ROUND_BYTES = 4_294_967_296;
/**
 * A project gets a base after so many bytes of its parts: to open it after a restore takes as much memory.
 * With fewer, a large project with many writes would be copied again and again.
 */
const PARTS_BYTES = 268_435_456;

/** The log was given up before it was read. The header of its next segment lets a chain begin. */
export class ChainNotBegun extends Error {
  override readonly name = 'ChainNotBegun';

  constructor() {
    super('the log has given up what a chain would begin with: it begins with the next segment');
  }
}

/** The running engine, as the archive sees it. */
export interface ShippedEngine {
  /** The log from a segment on, or from the first live one on when undefined. */
  logEnd(from: number | undefined): Promise<LogEnd>;
  /** Projects whose folders or small files changed since the last call. */
  takeChanged(): Promise<readonly string[]>;
  /** Segments before this one need not be kept for the archive. */
  shipped(segment: number): Promise<void>;
}

export interface ShipperOptions {
  readonly disk: ReadingDisk;
  readonly dataDir: string;
  readonly projectsDir: string;
  /** 16 bytes. */
  readonly storageId: Buffer;
  readonly storage: ObjectStorage;
  readonly engine: ShippedEngine;
  readonly position: Pick<PositionStore, 'read' | 'write'>;
  readonly clock: Clock;
  /** A test sets fewer than the usual 8 MiB. */
  readonly objectBytes?: number;
  /** A test sets fewer than the usual 4 GiB. */
  readonly roundBytes?: number;
  /** A test sets fewer than the usual 256 MiB. */
  readonly partsBytes?: number;
}

/** What was shipped with an object. */
export interface Shipped extends Pick<AddedBases, 'bytes' | 'files' | 'failed'> {
  /** Whether more waits, so that the next object need not wait. */
  readonly isMore: boolean;
  /** Whether the chain has everything that was durable when the object was begun. */
  readonly isComplete: boolean;
  /** Whether the object begins a chain, since a former one could not be continued. */
  readonly isRoot: boolean;
}

interface Finished {
  readonly name: string;
  readonly bytes: Buffer;
  readonly position: ArchivePosition;
  readonly shipped: Shipped;
  readonly storageFile: string;
}

type Draft = Omit<ArchivePosition, 'log' | 'segments' | 'arrivals'> & {
  log: ArchivePosition['log'] | undefined;
  readonly segments: Map<number, number>;
  readonly arrivals: Set<string>;
};

/**
 * Ships the log and the folders of projects, object by object (docs/formats/archive.md). It reads what the
 * engine has made durable, and writes nothing but its position. Not for concurrent use.
 *
 * A {@link next} that failed is repeated: an object that was finished is sent again with the same bytes.
 */
export class Shipper {
  readonly #options: ShipperOptions;
  readonly #objectBytes: number;
  readonly #reader: BaseReader;
  readonly #bases: BaseQueue;
  readonly #changes: ProjectChanges;
  readonly #epoch = randomBytes(16).toString('hex');
  #position: ArchivePosition | undefined;
  #isBegun = false;
  /** An object that was finished, and may have been sent. */
  #finished: Finished | undefined;
  /** The content of the last storage file that this process has shipped. */
  #storageFile = '';

  constructor(options: ShipperOptions) {
    this.#options = options;
    this.#objectBytes = options.objectBytes ?? OBJECT_BYTES;
    this.#reader = new BaseReader(options.disk, options.dataDir, options.projectsDir);
    this.#bases = new BaseQueue(this.#reader);
    const takeChanged = () => options.engine.takeChanged();
    const { partsBytes = PARTS_BYTES } = options;
    this.#changes = new ProjectChanges(this.#reader, this.#bases, takeChanged, partsBytes);
  }

  /** What was shipped last; undefined before the first object. */
  get position(): ArchivePosition | undefined {
    return this.#position;
  }

  /** Whether an object waits to be sent again. */
  get isRepeatable(): boolean {
    return this.#finished !== undefined;
  }

  /** Number of bases that wait to be read. */
  get basesWaiting(): number {
    return this.#bases.waiting;
  }

  /**
   * Ships the next object, unless there is nothing to ship.
   *
   * @throws ObjectStorageError; AppError of the disk. Repeat the call if {@link isRepeatable}, otherwise
   *   continue with another Shipper.
   */
  async next(): Promise<Shipped | undefined> {
    if (!this.#isBegun) await this.#begin();
    this.#finished ??= await this.#make();
    const finished = this.#finished;
    if (finished === undefined) return undefined;
    const { storage, position, engine } = this.#options;
    await storage.put(finished.name, finished.bytes);
    await position.write(finished.position);
    this.#finished = undefined;
    freeMemory(finished.bytes);
    this.#position = finished.position;
    this.#storageFile = finished.storageFile;
    await engine.shipped(finished.position.log.segment);
    return finished.shipped;
  }

  /** Finds where to go on, and what became of the folders meanwhile. */
  async #begin(): Promise<void> {
    const known = await this.#options.position.read();
    const last = known && (await this.#isInArchive(known)) ? known : undefined;
    await this.#changes.begin(last?.arrivals ?? []);
    this.#position = last;
    this.#isBegun = true;
  }

  /** Whether a chain can go on there. An older copy of the data folder may name objects that were pruned. */
  async #isInArchive({ epoch, n, segments }: ArchivePosition): Promise<boolean> {
    const { storage, storageId } = this.#options;
    const key = objectKey(storageId, { epoch, n });
    if ((await storage.get(key, { range: { at: 0, bytes: 1 }, maxBytes: 1 })) === undefined) return false;
    const first = Math.min(n, ...segments.map(([, object]) => object));
    return (await numberFrom(storage, storageId, first)) === first;
  }

  async #make(): Promise<Finished | undefined> {
    const { clock, engine } = this.#options;
    const position = await this.#continued();
    const draft = position ?? (await this.#root());
    if (this.#isRoundDue(draft)) await this.#beginRound(draft);
    const builder = new ObjectBuilder();
    // First, so that the bases of projects that were just created are in the object of their first frames.
    await this.#changes.take(builder, this.#objectBytes / 2);
    const bases = await this.#bases.add(builder, this.#objectBytes);
    this.#changes.based(bases.ended, draft.arrivals);
    // A chain begins with the first segment of its round, even if that was freed meanwhile.
    const askedMs = clock.now();
    const log = await engine.logEnd(draft.log?.segment ?? this.#bases.round?.segment);
    // It was given up meanwhile: the chain begins again.
    const isBegun = draft.log !== undefined || log.segments[0]?.number === this.#bases.round?.segment;
    if (!isBegun) throw new ChainNotBegun();
    const isLogLeft = await this.#addFrames(builder, draft, log);
    const storageFile = await this.#addStorageFile(builder);
    const logEnd = endOf(log);
    this.#endRound(builder, draft, logEnd);
    // What was durable by then is shipped, unless the object was cut.
    const timeMs = Math.max(askedMs, draft.timeMs);
    if (draft.log === undefined || (builder.bytes === 0 && timeMs < draft.timeMs + IDLE_MS)) return undefined;
    const { log: place } = draft;
    const { bytes, files, failed } = bases;
    const shipped: Shipped = {
      bytes,
      files,
      failed,
      isMore: this.#bases.waiting > 0 || this.#changes.isMore || isLogLeft,
      isComplete: !isLogLeft,
      isRoot: position === undefined && draft.n > 0,
    };
    const finished = this.#finish(builder, { ...draft, log: place, timeMs }, logEnd, storageFile);
    return { ...finished, shipped, storageFile: storageFile.text };
  }

  /** The next object's position before anything was added; undefined when the chain cannot be continued. */
  async #continued(): Promise<Draft | undefined> {
    const position = this.#position;
    if (position === undefined) return undefined;
    const { segments } = await this.#options.engine.logEnd(position.log.segment);
    if (!(await isContinued(this.#options.disk, segments, position.log))) return undefined;
    return {
      ...position,
      segments: new Map(position.segments),
      arrivals: new Set(position.arrivals),
    };
  }

  /** A chain without anything before. Its number is beyond those of all other objects. */
  async #root(): Promise<Draft> {
    const { engine, storage, storageId } = this.#options;
    const { segments, firstLive } = await engine.logEnd(undefined);
    // It was freed, and may be used again before it is read. The next segment's header names a later one.
    if (segments[0]?.number !== firstLive) throw new ChainNotBegun();
    // An older copy of the data folder has an older position.
    const n = Math.max(this.#position?.n ?? 0, await highestN(storage, storageId));
    this.#position = undefined;
    this.#storageFile = '';
    // The round that follows reads all folders.
    this.#changes.clear();
    this.#bases.clear();
    const draft = { epoch: '', n, hash: '', timeMs: 0, log: undefined };
    return { ...draft, segments: new Map(), arrivals: new Set() };
  }

  #isRoundDue({ round }: Draft): boolean {
    if (this.#bases.round !== undefined) return false;
    const { clock, roundBytes = ROUND_BYTES } = this.#options;
    if (round === undefined || round.bytesSince > roundBytes) return true;
    // A clock that was ahead must not put it off.
    return Math.abs(clock.now() - round.beganMs) > ROUND_MS;
  }

  async #beginRound(draft: Draft): Promise<void> {
    const { firstLive } = await this.#options.engine.logEnd(draft.log?.segment);
    const first = draft.segments.get(firstLive) ?? draft.n + 1;
    const round = { beganMs: this.#options.clock.now(), first, segment: firstLive };
    // Each restore needs one.
    this.#storageFile = '';
    this.#bases.beginRound(round, await this.#reader.projects());
  }

  async #addFrames(builder: ObjectBuilder, draft: Draft, log: LogEnd): Promise<boolean> {
    const before = builder.bytes;
    for (const number of draft.segments.keys()) if (number < log.firstLive) draft.segments.delete(number);
    const object = {
      builder,
      bytesMax: Math.max(this.#objectBytes, builder.bytes + this.#objectBytes / 2),
      n: draft.n + 1,
    };
    // No part under a key version that its project's file may not list yet.
    await this.#changes.look();
    const isMore = await addFrames(this.#options.disk, log, object, draft, {
      before: (parts) => this.#changes.takeOf(parts, builder),
      after: (part) => this.#changes.partShipped(part, draft.arrivals),
    });
    const { round } = draft;
    if (round !== undefined)
      draft.round = { ...round, bytesSince: round.bytesSince + builder.bytes - before };
    return isMore;
  }

  /** Without what lets a copy act as this storage. */
  async #addStorageFile(builder: ObjectBuilder): Promise<{ text: string; takenOverMs: number }> {
    const { disk, dataDir } = this.#options;
    const path = join(dataDir, STORAGE_FILE);
    const content = await disk.read(path, SMALL_FILE_BYTES_MAX);
    if (content === undefined) throw storageIdMissing(path);
    const file = withoutGeneration(parseStorageFile(path, content.toString()));
    const text = formatStorageFile(file);
    if (text !== this.#storageFile) builder.add({ kind: 'storage file', bytes: Buffer.from(text) });
    return { text, takenOverMs: file.takenOverMs };
  }

  #endRound(builder: ObjectBuilder, draft: Draft, logEnd: FramePlace): void {
    if (draft.log === undefined) return;
    const ended = this.#bases.takeEnded(logEnd, draft.log);
    if (ended === undefined) return;
    const { beganMs, first, segment, bases } = ended;
    builder.add({ kind: 'round ends', bases });
    draft.round = { endedIn: draft.n + 1, first, segment, beganMs, bytesSince: 0 };
  }

  #finish(
    builder: ObjectBuilder,
    draft: Draft & Pick<ArchivePosition, 'log'>,
    logEnd: FramePlace,
    { takenOverMs }: { readonly takenOverMs: number },
  ): Pick<Finished, 'name' | 'bytes' | 'position'> {
    const { storageId } = this.#options;
    const before = this.#position && shippedObject(this.#position);
    const id = { epoch: this.#epoch, n: draft.n + 1 };
    const { timeMs, log, round } = draft;
    const end = { segment: log.segment, frame: log.frame };
    const { bytes, hash } = builder.finish({
      ...id,
      storageId,
      before,
      timeMs,
      end,
      log: logEnd,
      round,
      takenOverMs,
    });
    const position: ArchivePosition = {
      ...id,
      hash: hash.toString('hex'),
      timeMs,
      log,
      segments: [...draft.segments],
      arrivals: [...draft.arrivals].slice(-ARRIVALS_MAX),
      round,
    };
    return { name: objectKey(storageId, id), bytes, position };
  }
}

/** The last place of the log. */
function endOf({ segments }: LogEnd): FramePlace {
  const last = segments.at(-1);
  return { segment: last?.number ?? 0, frame: last?.lastFrame ?? 0 };
}
