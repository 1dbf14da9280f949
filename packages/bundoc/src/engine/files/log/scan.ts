import { join } from 'node:path';
import { decodeHead } from './frame.ts';
import { HandleIndex } from './handle-index.ts';
import { BLOCK_BYTES, comparePlaces, type FramePlace } from './layout.ts';
import type { LogFile, ReadableLogDisk } from './ports.ts';
import { type SegmentIndex, type SuspectFrame, scanFrames } from './scan-frames.ts';
import {
  type Cut,
  decodeHeader,
  decodeIndex,
  type FoundHeader,
  isFormerSegment,
  isRemembered,
} from './segment-header.ts';

/** The log cannot be opened: some of it is lost, and writing must not hide that. */
export class LogDamaged extends Error {
  override readonly name = 'LogDamaged';
}

/** The name of a segment's file. */
const SEGMENT_FILE = /^\d{8}$/;

/** The storage has had a log, and it is missing. */
export function lostLog(directory: string): LogDamaged {
  return new LogDamaged(`${directory} has no log, though this storage had one: put it back`);
}

export interface LiveSegment {
  readonly number: number;
  readonly id: Buffer;
  readonly path: string;
  /** The block of its first frame. */
  readonly firstFrame: number;
  /** Its last valid frame; undefined for the last segment of the log. */
  readonly end: Cut | undefined;
}

/** What is known of a log without any key. */
export interface LogScan {
  /** Live segments, oldest first. */
  readonly live: readonly LiveSegment[];
  /** Segments before them whose files were not used again, oldest first. Their files are free. */
  readonly freed: readonly LiveSegment[];
  /** Files for new segments. */
  readonly free: readonly string[];
  /** Files that are too short because their creation was interrupted. */
  readonly truncated: readonly string[];
  readonly index: HandleIndex;
  /** The last valid frame, and the index of its segment. */
  readonly tail: { readonly cut: Cut; readonly index: SegmentIndex } | undefined;
  /**
   * The last frame, or the header if no frame follows it. It must be written again, because it may have been
   * read only from the page cache.
   */
  readonly unsure: { readonly path: string; readonly offset: number; readonly bytes: Buffer } | undefined;
  readonly hole: FramePlace | undefined;
  /** Segments whose headers have lost the handles that they remembered: these are unknown. */
  readonly lostLists: readonly number[];
  readonly suspects: readonly SuspectFrame[];
  /** The first live segment, as the newest header has it; 1 without a header. */
  readonly firstLive: number;
  /** The smallest unused segment number. */
  readonly nextNumber: number;
  readonly nextFile: number;
}

interface FileOnDisk {
  readonly path: string;
  readonly header: FoundHeader | undefined;
}

/**
 * Scans a log: the index blocks of closed segments, and all frames of the last one. Changes nothing.
 *
 * @param segmentBytes the length of a segment's file.
 * @param everyFrame whether to also check the frames of segments with an undamaged index.
 * @throws LogDamaged when a segment or the header of a live one is missing.
 */
export async function scanLog(
  disk: ReadableLogDisk,
  directory: string,
  storageId: Buffer,
  segmentBytes: number,
  everyFrame = false,
): Promise<LogScan> {
  const names = ((await disk.list(directory)) ?? []).filter((name) => SEGMENT_FILE.test(name)).sort();
  const files: FileOnDisk[] = [];
  const truncated: string[] = [];
  for (const name of names) {
    const path = join(directory, name);
    const file = await disk.openLogFile(path);
    try {
      const block = await file.read(0, BLOCK_BYTES);
      const header = decodeHeader(block);
      if (header === undefined && isFormerSegment(block))
        throw new LogDamaged(`${path} is a log of an earlier release, which this one cannot read`);
      if (header === undefined && file.bytes < segmentBytes) truncated.push(path);
      else files.push({ path, header });
    } finally {
      await file.close();
    }
  }
  const nextFile = names.reduce((next, name) => Math.max(next, Number.parseInt(name, 10) + 1), 0);
  const links = files.filter((file): file is Link => file.header !== undefined);
  const newest = links.reduce<Link | undefined>(
    (last, link) => (last === undefined || link.header.number > last.header.number ? link : last),
    undefined,
  );
  await refuseDamagedHeaders(disk, files, newest?.header);
  const { live: chain, freed } = chainOf(links, newest, storageId);
  const scanned = await scanChain(disk, chain, everyFrame);
  const live = new Set(chain.map(({ path }) => path));
  const segments = [...freed, ...chain].map(({ path, header: { number, id, firstFrame } }, at, all) => {
    const end = all[at + 1]?.header.cut;
    return { path, number, id, firstFrame, end };
  });
  return {
    live: segments.slice(freed.length),
    freed: segments.slice(0, freed.length),
    free: files.map(({ path }) => path).filter((path) => !live.has(path)),
    truncated,
    ...scanned,
    firstLive: newest?.header.firstLive ?? 1,
    nextNumber: files.reduce((next, { header }) => Math.max(next, (header?.number ?? 0) + 1), 1),
    nextFile,
  };
}

interface Link extends FileOnDisk {
  readonly header: FoundHeader;
}

/**
 * The live segments, and those before them that are still there, oldest first. Each header names the previous
 * segment by its id, which skips failed ones.
 */
function chainOf(
  links: readonly Link[],
  newest: Link | undefined,
  storageId: Buffer,
): { readonly live: readonly Link[]; readonly freed: readonly Link[] } {
  for (const { header, path } of links)
    if (!header.storageId.equals(storageId))
      throw new LogDamaged(`${path} belongs to another storage: put back the log of this data folder`);
  const byId = new Map(links.map((link) => [link.header.id.toString('hex'), link]));
  const live: Link[] = [];
  const freed: Link[] = [];
  const firstLive = newest?.header.firstLive ?? 0;
  for (let link = newest; link !== undefined; ) {
    const { cut, number } = link.header;
    (number < firstLive ? freed : live).unshift(link);
    if (cut === undefined) break;
    const before = byId.get(cut.segmentId.toString('hex'));
    if (before === undefined && cut.segment >= firstLive)
      throw new LogDamaged(`segment ${cut.segment} of the log is missing, and segment ${number} follows it`);
    link = before;
  }
  return { live, freed };
}

/**
 * A file without a header is free, or a crash came before its header. If it has frames of a live segment, its
 * header was damaged.
 */
async function refuseDamagedHeaders(
  disk: ReadableLogDisk,
  files: readonly FileOnDisk[],
  newest: FoundHeader | undefined,
): Promise<void> {
  for (const { path, header } of files) {
    if (header !== undefined) continue;
    const bytes = await readWhole(disk, path);
    for (let at = 1; at * BLOCK_BYTES < bytes.length; at++) {
      const head = decodeHead(bytes, at * BLOCK_BYTES);
      if (head !== undefined && head.segment >= (newest?.firstLive ?? 0))
        throw new LogDamaged(`the header of segment ${head.segment} is damaged, in ${path}`);
    }
  }
}

async function readWhole(disk: ReadableLogDisk, path: string): Promise<Buffer> {
  const file = await disk.openLogFile(path);
  try {
    return await file.read(0, file.bytes);
  } finally {
    await file.close();
  }
}

type ScannedChain = Pick<LogScan, 'index' | 'tail' | 'unsure' | 'hole' | 'lostLists' | 'suspects'>;

async function scanChain(
  disk: ReadableLogDisk,
  chain: readonly Link[],
  everyFrame: boolean,
): Promise<ScannedChain> {
  const index = new HandleIndex();
  const lostLists: number[] = [];
  let hole = chain.at(-1)?.header.hole;
  let tail: LogScan['tail'];
  let unsure: LogScan['unsure'];
  const suspects: SuspectFrame[] = [];
  for (const [at, { path, header }] of chain.entries()) {
    const successor = chain[at + 1];
    const cut = successor?.header.cut;
    const remembered = await rememberedIn(disk, { path, header });
    if (remembered === undefined) lostLists.push(header.number);
    else index.remember(remembered, header.number);
    let parts = successor === undefined ? undefined : await indexIn(disk, successor);
    if (parts === undefined) {
      const bytes = await readWhole(disk, path);
      const frames = scanFrames(bytes, header, cut);
      parts = frames.index;
      suspects.push(...frames.suspects);
      hole = later(hole, frames.hole);
      if (cut === undefined) {
        const [start, end] = [frames.last?.start ?? 0, frames.last?.end ?? header.firstFrame * BLOCK_BYTES];
        unsure = { path, offset: start, bytes: Buffer.from(bytes.subarray(start, end)) };
      }
      if (frames.last !== undefined && cut === undefined) {
        const { number: frame, hash } = frames.last;
        tail = { cut: { segment: header.number, segmentId: header.id, frame, hash }, index: parts };
      }
    } else if (everyFrame) suspects.push(...scanFrames(await readWhole(disk, path), header, cut).suspects);
    // This stays the tail until a later segment has frames: the next header names the same frame.
    if (cut !== undefined) tail = { cut, index: parts };
    for (const entry of parts.values()) {
      if (entry.isGone) index.remove(entry.handle);
      else index.add(entry);
    }
  }
  tail ??= chain[0]?.header.cut && { cut: chain[0].header.cut, index: new Map() };
  return { index, tail, unsure, hole, lostLists, suspects };
}

function later(a: FramePlace | undefined, b: FramePlace | undefined): FramePlace | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return comparePlaces(a, b) > 0 ? a : b;
}

/** The handles that a header remembers; undefined when they are damaged. */
async function rememberedIn(disk: ReadableLogDisk, { path, header }: Link): Promise<Buffer | undefined> {
  if (header.rememberedBytes === 0) return Buffer.alloc(0);
  const file: LogFile = await disk.openLogFile(path);
  try {
    const bytes = await file.read(BLOCK_BYTES + header.indexBytes, header.rememberedBytes);
    return isRemembered(header, bytes) ? bytes : undefined;
  } finally {
    await file.close();
  }
}

/** The index of the previous segment, which follows a header; undefined when it is damaged. */
async function indexIn(disk: ReadableLogDisk, { path, header }: Link): Promise<SegmentIndex | undefined> {
  const file: LogFile = await disk.openLogFile(path);
  try {
    const entries = decodeIndex(header, await file.read(BLOCK_BYTES, header.indexBytes));
    return entries && new Map(entries.map((entry) => [entry.handle, entry]));
  } finally {
    await file.close();
  }
}
