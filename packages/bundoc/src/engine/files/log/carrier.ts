import type { AppError } from '@bundoc/shared/contract/app-error';
import { type Carried, decodeCarried, encodeCarried } from './carried-file.ts';
import { comparePlaces, type Place } from './layout.ts';
import type { CarryTarget, FailedHandles, LogOptions } from './log-api.ts';
import type { LogContent } from './log-content.ts';
import type { PartReader } from './parts.ts';
import type { LiveSegment } from './scan.ts';
import { type SegmentIndex, scanFrames } from './scan-frames.ts';
import { PartsDamaged, type SealedPart } from './sealed-part.ts';
import type { Segments } from './segments.ts';
import type { StuckParts } from './stuck-parts.ts';

/** Files that are written to folders of projects at once. */
const BATCH = 512;

/** Copies sealed parts from the log into the folders of their projects, without any key. */
export class Carrier {
  readonly #storageId: Buffer;
  readonly #segments: Segments;
  readonly #content: LogContent;
  readonly #stuck: StuckParts;
  /** Number of carried files. */
  carried = 0;

  constructor(
    { storageId }: Pick<LogOptions, 'storageId'>,
    segments: Segments,
    content: LogContent,
    stuck: StuckParts,
  ) {
    this.#storageId = storageId;
    this.#segments = segments;
    this.#content = content;
    this.#stuck = stuck;
  }

  /**
   * Carries the parts that pin a segment. For projects whose folders fail, it writes them to the log's own
   * folder.
   *
   * @returns handles whose folders failed, and why. @throws when the log's own folder fails, too.
   */
  async carry(segment: LiveSegment, target: CarryTarget): Promise<FailedHandles> {
    const handles = this.#content.index.pinning(segment.number);
    const failed = new Map<string, Error>();
    if (handles.length === 0) return failed;
    await using reader = this.#segments.reader();
    const index = await this.#readIndex(reader, segment);
    for (let at = 0; at < handles.length; at += BATCH) {
      const some = handles.slice(at, at + BATCH);
      const batch: Carried[] = [];
      for (const handle of some) {
        const carried = await this.#readCarried(reader, segment, handle, index.get(handle)?.last);
        if (carried !== undefined) batch.push(carried);
      }
      for (const [handle, cause] of await this.#put(batch, target)) failed.set(handle, cause);
      const next = this.#segments.after(segment.number);
      const bytesOf = new Map(batch.map(({ handle, parts }) => [handle, bodyBytes(parts)]));
      for (const handle of some)
        this.#content.index.coverSegment(handle, segment.number, next, bytesOf.get(handle) ?? 0);
      this.carried += batch.length;
    }
    return failed;
  }

  /** The last part of each handle in a segment; empty when the whole segment cannot be read. */
  async #readIndex(reader: PartReader, segment: LiveSegment): Promise<SegmentIndex> {
    const bytes = await reader.preloadIfWhole(segment);
    // A bad sector loses the parts in it, but later segments must still be freed.
    return bytes === undefined ? new Map() : scanFrames(bytes, segment, segment.end).index;
  }

  /**
   * Moves the files in the log's own folder back into the folders of their projects.
   *
   * @returns handles whose files stay, and why: their folders fail, or a file is damaged.
   */
  async putBack(target: CarryTarget): Promise<FailedHandles> {
    const failed = new Map<string, Error>();
    for (const handle of this.#stuck.handles) {
      try {
        const contents = await this.#stuck.read(handle);
        const files = contents.map((content) => ({
          handle,
          segment: decodeCarried(content).segment,
          content,
        }));
        const outcomes = await target.write(files);
        const cause = outcomes.find((error) => error !== undefined);
        if (cause === undefined) await this.#stuck.remove(handle);
        else failed.set(handle, cause);
      } catch (error) {
        if (!(error instanceof PartsDamaged)) throw error;
        failed.set(handle, error);
      }
    }
    return failed;
  }

  async #put(batch: readonly Carried[], target: CarryTarget): Promise<FailedHandles> {
    const files = batch.map((one) => ({
      handle: one.handle,
      segment: one.segment,
      content: encodeCarried(one),
    }));
    const outcomes: readonly (AppError | undefined)[] = files.length === 0 ? [] : await target.write(files);
    const failed = new Map<string, Error>();
    for (const [at, file] of files.entries()) {
      const { handle } = file;
      const cause = outcomes[at];
      if (cause === undefined || !this.#content.isUncovered(handle)) continue;
      await this.#stuck.put(file);
      // The project may have ended in the meantime.
      if (this.#content.isUncovered(handle)) failed.set(handle, cause);
      else await this.#stuck.remove(handle);
    }
    return failed;
  }

  /**
   * The parts of a handle that pin a segment; undefined when it has none there. An unreadable part is
   * detected when the project opens.
   */
  async #readCarried(
    reader: PartReader,
    { number, id }: LiveSegment,
    handle: string,
    found: Place | undefined,
  ): Promise<Carried | undefined> {
    const newest = this.#content.index.newest(handle);
    const oldest = this.#content.index.oldest(handle);
    const last =
      newest?.segment === number ? newest : (found ?? (await reader.lastIn(number, handle, newest)));
    if (oldest === undefined || last === undefined || comparePlaces(last, oldest) < 0) return undefined;
    const parts = await reader.within(handle, last, oldest);
    const storageId = this.#storageId;
    return { storageId, handle, segment: number, segmentId: id, newest: last, parts };
  }
}

function bodyBytes(parts: readonly SealedPart[]): number {
  return parts.reduce((sum, { body }) => sum + body.length, 0);
}
