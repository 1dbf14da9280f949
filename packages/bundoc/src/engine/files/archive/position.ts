import { join } from 'node:path';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';
import { type Disk, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import type { ShippedObject } from './object.ts';

/** Below the data folder. */
export const ARCHIVE_FOLDER = 'archive';
export const POSITION_FILE = 'position.json';
export const POSITION_BYTES_MAX = 1_048_576;
const FORMAT = 1;

const hex = (digits: number) => z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`));
const count = z.int().nonnegative();

const positionSchema = z.strictObject({
  format: z.literal(FORMAT),
  target: z.string(),
  storage: hex(32),
  epoch: hex(32),
  n: count,
  hash: hex(64),
  timeMs: count,
  log: z.strictObject({
    segment: count,
    segmentId: hex(32),
    frame: count,
    next: count,
    frameHash: hex(32),
  }),
  /** The object that has the header of each segment from the first live one on. */
  segments: z.array(z.tuple([count, count])),
  /** Handles whose first part was shipped, and whose base was not. */
  arrivals: z.array(hex(16)),
  round: z
    .strictObject({ endedIn: count, first: count, segment: count, beganMs: count, bytesSince: count })
    .optional(),
});
export type PositionFile = z.infer<typeof positionSchema>;

/** Undefined for anything else. */
export function parsePosition(content: string): PositionFile | undefined {
  return positionSchema.safeParse(parseJson(content)).data;
}

/** The place of the log up to which it was shipped. */
export interface ShippedPlace {
  readonly segment: number;
  /** 32 hexadecimal digits. */
  readonly segmentId: string;
  /** The last frame. */
  readonly frame: number;
  /** The block after it. */
  readonly next: number;
  /** 32 hexadecimal digits. */
  readonly frameHash: string;
}

/** What was shipped last. */
export interface ArchivePosition extends Omit<PositionFile, 'format' | 'target' | 'storage'> {}

/** Keeps the position of a data folder in a target: another target gets everything from its start. */
export class PositionStore {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #tmp: string;
  readonly #target: string;
  readonly #storage: string;

  /** @param storageId 16 bytes. */
  constructor(disk: Disk, dataDir: string, tmp: string, target: string, storageId: Buffer) {
    this.#disk = disk;
    this.#directory = join(dataDir, ARCHIVE_FOLDER);
    this.#tmp = tmp;
    this.#target = target;
    this.#storage = storageId.toString('hex');
  }

  /** Undefined when there is none, or it is damaged, or that of another target. */
  async read(): Promise<ArchivePosition | undefined> {
    await makeDirectoryDurably(this.#disk, this.#directory);
    const content = await this.#disk.read(join(this.#directory, POSITION_FILE), POSITION_BYTES_MAX);
    const parsed = positionSchema.safeParse(parseJson(content?.toString() ?? ''));
    if (parsed.data?.target !== this.#target || parsed.data.storage !== this.#storage) return undefined;
    const { format: _, target, storage, ...position } = parsed.data;
    return position;
  }

  /** Resolves once it is durable. */
  async write(position: ArchivePosition): Promise<void> {
    const file = { format: FORMAT, target: this.#target, storage: this.#storage, ...position };
    const content = Buffer.from(`${JSON.stringify(file)}\n`);
    await replaceFile(this.#disk, this.#tmp, join(this.#directory, POSITION_FILE), content);
  }
}

/**
 * The first segment of the log that an archive of the data folder may lack, whichever it is; undefined when
 * none was ever shipped to.
 */
export async function keptSegment(disk: Pick<Disk, 'read'>, dataDir: string): Promise<number | undefined> {
  const path = join(dataDir, ARCHIVE_FOLDER, POSITION_FILE);
  // Without it, another chain begins: that is no reason not to start.
  const content = await disk.read(path, POSITION_BYTES_MAX).catch(() => undefined);
  return positionSchema.safeParse(parseJson(content?.toString() ?? '')).data?.log.segment;
}

/** Removes the position: the log keeps nothing for an archive any more. */
export async function forgetPosition(disk: Disk, dataDir: string): Promise<void> {
  await disk.remove(join(dataDir, ARCHIVE_FOLDER, POSITION_FILE));
}

/** The object of a position, as the next one names it. */
export function shippedObject({ epoch, n, hash }: ArchivePosition): ShippedObject {
  return { epoch, n, hash: Buffer.from(hash, 'hex') };
}
