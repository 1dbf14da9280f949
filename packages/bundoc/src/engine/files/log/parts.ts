import { hasCode } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { decodeCarried } from './carried-file.ts';
import { ENTRY_BYTES, findPart, headBytesAt, readEntry, type SealedEntry } from './frame.ts';
import { BLOCK_BYTES, comparePlaces, type FramePlace, isSamePlace, type Place, TAG_BYTES } from './layout.ts';
import { aadStart, openPart, type PartKeys, type PartSeal, partKey } from './part-seal.ts';
import type { LogFile, ReadableLogDisk } from './ports.ts';
import type { LiveSegment } from './scan.ts';
import { PartsDamaged, type SealedPart } from './sealed-part.ts';

/** Reads parts from live segments; opens each file once. */
export class PartReader implements AsyncDisposable {
  readonly #disk: Pick<ReadableLogDisk, 'openLogFile'>;
  readonly #segments: ReadonlyMap<number, LiveSegment>;
  readonly #files = new Map<number, LogFile>();
  readonly #onEnd: () => void;
  constructor(
    disk: Pick<ReadableLogDisk, 'openLogFile'>,
    segments: ReadonlyMap<number, LiveSegment>,
    onEnd: () => void = () => undefined,
  ) {
    this.#disk = disk;
    this.#segments = segments;
    this.#onEnd = onEnd;
  }

  /**
   * Reads the part of a handle at a place. Only its tag is checked, against the place; nothing is
   * authenticated yet.
   *
   * @param withBody whether the body is read as well; otherwise it may be empty.
   * @returns undefined when there is no such part.
   */
  async read(
    handle: string,
    place: { readonly segment: number; readonly frame: number; readonly tag?: Buffer },
    withBody = true,
  ): Promise<SealedPart | undefined> {
    const segment = this.#segments.get(place.segment);
    if (segment === undefined) return undefined;
    const file = await this.#open(segment);
    const start = place.frame * BLOCK_BYTES;
    let head = await file.read(start, BLOCK_BYTES);
    const headBytes = headBytesAt(head);
    if (headBytes === undefined) return undefined;
    if (headBytes > head.length) head = await file.read(start, headBytes);
    if (headBytes > head.length) return undefined;
    const found = findPart(head, handle);
    const entry = found && readEntry(found.entry, 0);
    if (found === undefined || entry === undefined) return undefined;
    if (place.tag !== undefined && !entry.tag.equals(place.tag)) return undefined;
    const end = found.bodyStart + found.bodyBytes;
    const isThere = end <= head.length;
    if (!withBody && !isThere) return partOf(segment, place, entry, found.entry, NO_BODY);
    const body = isThere
      ? head.subarray(found.bodyStart, end)
      : await file.read(start + found.bodyStart, found.bodyBytes);
    if (body.length < found.bodyBytes) return undefined;
    return partOf(segment, place, entry, found.entry, body);
  }

  /** Reads a whole segment at once, when many of its parts are needed. */
  async preload(segment: LiveSegment): Promise<Buffer> {
    const file = await this.#open(segment);
    const bytes = await file.read(0, file.bytes);
    const read = async (offset: number, length: number) => bytes.subarray(offset, offset + length);
    this.#files.set(segment.number, { ...file, bytes: bytes.length, read, close: () => file.close() });
    return bytes;
  }

  /** {@link preload}; undefined when a sector of the segment is unreadable. */
  async preloadIfWhole(segment: LiveSegment): Promise<Buffer | undefined> {
    await this.#open(segment);
    return unlessUnreadable(this.preload(segment));
  }

  /** The readable parts of a handle in one segment, found from `last` back to `oldest`; oldest first. */
  async within(handle: string, last: Place, oldest: FramePlace): Promise<SealedPart[]> {
    const parts: SealedPart[] = [];
    for (let place: Place | undefined = last; place?.segment === last.segment; ) {
      if (comparePlaces(place, oldest) < 0) break;
      const part: SealedPart | undefined = await this.#readIfWhole(handle, place);
      if (part === undefined) break;
      parts.push(part);
      place = part.entry.previous;
    }
    return parts.reverse();
  }

  /**
   * The last part of a handle in a segment, found from its newest part backwards, as far as that is readable.
   */
  async lastIn(segment: number, handle: string, newest: Place | undefined): Promise<Place | undefined> {
    let place = newest;
    while (place !== undefined && place.segment > segment)
      place = (await this.#readIfWhole(handle, place, false))?.entry.previous;
    return place?.segment === segment ? place : undefined;
  }

  /**
   * A part in an unreadable sector counts as missing. A file that cannot be opened is an error, because then
   * nothing is known.
   */
  async #readIfWhole(handle: string, place: Place, withBody = true): Promise<SealedPart | undefined> {
    const segment = this.#segments.get(place.segment);
    if (segment === undefined) return undefined;
    await this.#open(segment);
    return unlessUnreadable(this.read(handle, place, withBody));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const files = [...this.#files.values()];
    this.#files.clear();
    try {
      for (const file of files) await file.close();
    } finally {
      this.#onEnd();
    }
  }

  async #open({ number, path }: LiveSegment): Promise<LogFile> {
    let file = this.#files.get(number);
    if (file === undefined) {
      file = await this.#disk.openLogFile(path);
      this.#files.set(number, file);
    }
    return file;
  }
}

async function unlessUnreadable<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (hasCode(error, 'storage_unavailable')) return undefined;
    throw error;
  }
}

const NO_BODY = Buffer.alloc(0);
/** Bytes of bodies that an opening keeps while it walks back. */
const KEPT_BYTES_MAX = 1_048_576;

function partOf(
  { id }: LiveSegment,
  { segment, frame }: FramePlace,
  entry: SealedEntry,
  head: Buffer,
  body: Buffer,
): SealedPart {
  return {
    place: { segment, frame, tag: entry.tag },
    storageId: undefined,
    segmentId: id,
    head: Buffer.from(head),
    entry,
    body,
  };
}

/** The handle and the range of the wanted parts. */
export interface PartsWanted {
  readonly handle: string;
  /** The newest part in the log. */
  readonly newest: Place | undefined;
  /** The last part that the catalog covers; undefined when it covers none of this handle. */
  readonly covered: Place | undefined;
  /** Files of parts that were carried from the log, in any order. */
  readonly carried: readonly Buffer[];
}

/**
 * The parts of a handle after the covered ones, oldest first. It walks back from the newest one along the
 * entries; bodies are read one at a time.
 *
 * @throws PartsDamaged when one is missing, or the walk does not lead to the covered part.
 */
export async function* partsBehind(reader: PartReader, wanted: PartsWanted): AsyncGenerator<SealedPart> {
  const { handle, covered } = wanted;
  const carried = new Map<string, SealedPart>();
  let newest = wanted.newest;
  for (const file of wanted.carried) {
    const { handle: of, newest: last, parts } = decodeCarried(file);
    if (of !== handle) continue;
    for (const part of parts) carried.set(keyOf(part.place), part);
    const isNeeded = covered === undefined || comparePlaces(last, covered) > 0;
    if (isNeeded && (newest === undefined || comparePlaces(last, newest) > 0)) newest = last;
  }
  const at = async (place: Place, withBody: boolean): Promise<SealedPart> => {
    const part = (await reader.read(handle, place, withBody)) ?? carried.get(keyOf(place));
    if (part === undefined || !part.place.tag.equals(place.tag))
      throw new PartsDamaged(`${nameOfPlace(place)}: a part is damaged or missing`);
    return part;
  };
  const places: Place[] = [];
  // Most parts are read completely on the way back.
  const kept = new Map<Place, SealedPart>();
  let keptBytes = 0;
  let place = newest;
  while (place !== undefined && (covered === undefined || comparePlaces(place, covered) > 0)) {
    places.push(place);
    const part: SealedPart = await at(place, false);
    const { previous, bytes } = part.entry;
    if (part.body.length === bytes && keptBytes + bytes <= KEPT_BYTES_MAX) {
      kept.set(place, part);
      keptBytes += bytes;
    }
    if (previous !== undefined && comparePlaces(previous, place) >= 0)
      throw new PartsDamaged(`${nameOfPlace(place)}: the part names a later one as the one before`);
    place = previous;
  }
  const leadsBack =
    place === undefined || covered === undefined ? place === covered : isSamePlace(place, covered);
  if (!leadsBack)
    throw new PartsDamaged(
      covered === undefined
        ? 'parts lie before the first one'
        : `${nameOfPlace(covered)}: the parts of the log do not follow the one that the catalog covers`,
    );
  for (const one of places.reverse()) yield kept.get(one) ?? at(one, true);
}

/** The last part of a handle in carried files, which may be later than what its catalog covers. */
export function lastCarried(handle: string, carried: readonly Buffer[]): Place | undefined {
  let last: Place | undefined;
  for (const file of carried) {
    const { handle: of, newest } = decodeCarried(file);
    if (of === handle && (last === undefined || comparePlaces(newest, last) > 0)) last = newest;
  }
  return last;
}

function keyOf({ segment, frame }: Place): string {
  return `${segment} ${frame}`;
}

/** The name of a place in findings. */
export function nameOfPlace({ segment, frame }: FramePlace): string {
  return `segment ${segment}, frame ${frame} of the log`;
}

/** The plaintext of one or several commits of a frame. */
export interface OpenedPart {
  readonly kind: 'data' | 'gone';
  readonly place: Place;
  readonly plaintext: Buffer;
}

/**
 * Opens parts, and joins the chunks of large commits. Chunks without a last one belong to a commit that was
 * never acknowledged.
 *
 * @param storageId that of the log; a part carried from another log has its own.
 * @throws PartsDamaged for an undecryptable part, or one sealed under a version that is not live.
 */
export async function* openParts(
  project: string,
  storageId: Buffer,
  keys: PartKeys,
  parts: AsyncIterable<SealedPart>,
): AsyncGenerator<OpenedPart> {
  let chunks: Buffer[] = [];
  const seals = new PartSeals(project, storageId, keys);
  for await (const part of parts) {
    const { kind, chunks: count } = part.entry;
    const plaintext = openOne(seals, part);
    if (kind === 'chunk') {
      chunks.push(plaintext);
      continue;
    }
    if (count > chunks.length)
      throw new PartsDamaged(`${nameOfPlace(part.place)}: the first chunks of a commit are missing`);
    const whole = count === 0 ? plaintext : Buffer.concat([...chunks.slice(-count), plaintext]);
    chunks = [];
    yield { kind, place: part.place, plaintext: whole };
  }
}

/** Derives the key and AAD of one project's parts once for each use of a segment and each key version. */
class PartSeals {
  readonly #project: string;
  readonly #storageId: Buffer;
  readonly #keys: PartKeys;
  #last: { readonly part: SealedPart; readonly seal: PartSeal } | undefined;

  constructor(project: string, storageId: Buffer, keys: PartKeys) {
    this.#project = project;
    this.#storageId = storageId;
    this.#keys = keys;
  }

  /** @returns undefined for a version that is not live. */
  of(part: SealedPart): PartSeal | undefined {
    if (this.#last !== undefined && isSealedAlike(this.#last.part, part)) return this.#last.seal;
    const { entry, storageId = this.#storageId, segmentId } = part;
    const key = partKey(this.#keys, entry.keyVersion, segmentId, entry.handle);
    if (key === undefined) return undefined;
    const seal = { key, aad: aadStart(this.#project, storageId, segmentId) };
    this.#last = { part, seal };
    return seal;
  }
}

function isSealedAlike(a: SealedPart, b: SealedPart): boolean {
  return (
    a.entry.keyVersion === b.entry.keyVersion &&
    a.entry.handle === b.entry.handle &&
    a.storageId === b.storageId &&
    a.segmentId.equals(b.segmentId)
  );
}

/**
 * Opens a single part.
 *
 * @param storageId that of the log; a part carried from another log has its own.
 * @throws PartsDamaged when it is undecryptable, or sealed under a version that is not live.
 */
export function openSealedPart(project: string, storageId: Buffer, keys: PartKeys, part: SealedPart): Buffer {
  return openOne(new PartSeals(project, storageId, keys), part);
}

function openOne(seals: PartSeals, part: SealedPart): Buffer {
  const { entry, place, body, head } = part;
  if (entry.kind === 'gone') return Buffer.alloc(0);
  const seal = seals.of(part);
  if (seal === undefined)
    throw new PartsDamaged(`${nameOfPlace(place)}: there is no key of version ${entry.keyVersion}`);
  try {
    return openPart(seal, place, head.subarray(0, ENTRY_BYTES - TAG_BYTES), entry.tag, body);
  } catch (error) {
    if (!(error instanceof OpenError)) throw error;
    throw new PartsDamaged(`${nameOfPlace(place)}: a part does not open`, { cause: error });
  }
}
