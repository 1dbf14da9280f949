import { AppError } from '@bundoc/shared/contract/app-error';
import { comparePlaces, type FramePlace } from '../log/layout.ts';
import type { BaseReader } from './base-reader.ts';
import type { ArchiveRecord, ObjectBuilder } from './object.ts';

/** A round in progress. */
export interface Round {
  readonly beganMs: number;
  /** The first object that its restore needs. */
  readonly first: number;
  /** The first segment that its restore needs. */
  readonly segment: number;
}

interface ReadingBase {
  readonly project: string;
  readonly inRound: boolean;
  readonly records: AsyncGenerator<ArchiveRecord>;
  handle: string | undefined;
}

/** What was read for an object. */
export interface AddedBases {
  readonly isMore: boolean;
  readonly bytes: number;
  readonly files: number;
  /** Handles of the bases that ended. */
  readonly ended: readonly string[];
  /** Projects whose folders could not be read. Their bases are missing until the next round. */
  readonly failed: readonly string[];
}

/** The bases that wait to be read: those of projects that arrived, then those of a round. */
export class BaseQueue {
  readonly #bases: BaseReader;
  readonly #arrived = new Set<string>();
  #inRound: string[] = [];
  #round: (Round & { readonly bases: number }) | undefined;
  #reading: ReadingBase | undefined;
  /** The end of the log after the last base of the round was read. */
  #readUpTo: FramePlace | undefined;

  constructor(bases: BaseReader) {
    this.#bases = bases;
  }

  get round(): Round | undefined {
    return this.#round;
  }

  /** Number of bases that wait. */
  get waiting(): number {
    return this.#arrived.size + this.#inRound.length + (this.#reading === undefined ? 0 : 1);
  }

  arrive(project: string): void {
    this.#arrived.add(project);
  }

  beginRound(round: Round, projects: readonly string[]): void {
    this.#round = { ...round, bases: projects.length };
    this.#readUpTo = undefined;
    // Taken from the end.
    this.#inRound = projects.toReversed();
  }

  /**
   * The round, once all its bases were read and the log was shipped up to where it was then: their files may
   * have everything up to there.
   *
   * @param log the end of the log after the last read.
   * @param end the last place that was shipped.
   */
  takeEnded(log: FramePlace, end: FramePlace): (Round & { readonly bases: number }) | undefined {
    const round = this.#round;
    if (round === undefined || this.#inRound.length > 0 || this.#reading?.inRound === true) return undefined;
    this.#readUpTo ??= log;
    if (comparePlaces(this.#readUpTo, end) > 0 || end.segment < round.segment) return undefined;
    this.#round = undefined;
    return round;
  }

  /** Nothing waits any more, and no round is in progress. */
  clear(): void {
    this.#arrived.clear();
    this.#inRound = [];
    this.#reading = undefined;
    this.#round = undefined;
  }

  /** Adds records of bases to an object up to so many bytes. A base may continue in the next object. */
  async add(builder: ObjectBuilder, bytesMax: number): Promise<AddedBases> {
    const ended: string[] = [];
    const failed: string[] = [];
    const before = builder.bytes;
    let files = 0;
    while (builder.bytes < bytesMax) {
      this.#reading ??= this.#next();
      const reading = this.#reading;
      if (reading === undefined) break;
      const record = await nextRecord(reading.records);
      if (record === 'failed') failed.push(reading.project);
      else if (record !== undefined) {
        if (record.kind === 'file' && record.offset === 0) files++;
        builder.add(record);
        continue;
      } else if (reading.handle !== undefined) ended.push(reading.handle);
      this.#reading = undefined;
    }
    return { isMore: this.waiting > 0, bytes: builder.bytes - before, files, ended, failed };
  }

  #next(): ReadingBase | undefined {
    const [arrived] = this.#arrived;
    if (arrived !== undefined) this.#arrived.delete(arrived);
    const project = arrived ?? this.#inRound.pop();
    if (project === undefined) return undefined;
    const inRound = arrived === undefined;
    const records = this.#bases.base(project, inRound, (head) => {
      reading.handle = head?.handle;
    });
    const reading: ReadingBase = { project, inRound, records, handle: undefined };
    return reading;
  }
}

/** One folder that cannot be read keeps no other project from the archive: its base stays without an end. */
async function nextRecord(
  records: AsyncGenerator<ArchiveRecord>,
): Promise<ArchiveRecord | 'failed' | undefined> {
  try {
    const { value } = await records.next();
    return value;
  } catch (error) {
    if (error instanceof AppError) return 'failed';
    throw error;
  }
}
