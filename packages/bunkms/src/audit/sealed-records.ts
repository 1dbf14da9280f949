import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { SYSTEM } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import { draftNow } from '../records/draft-now.ts';
import type { AuditStore } from '../store/audit.ts';

/** Maximum bytes of the file. Later records are only counted. */
export const SEALED_FILE_BYTES_MAX = 1_048_576;
/** Maximum bytes that may wait for the disk. Records beyond it are only counted. */
const WAITING_BYTES_MAX = 262_144;
const FILE_NAME = 'sealed-records.jsonl';
/** The first line. It has a fixed length, so that the count in it can be overwritten. */
const HEADER = /^\{"format":1,"dropped":"(\d{12})"\}\n/;
const HEADER_BYTES = headerOf(0).length;
/** The record that adds a file to the chain. */
const RECORDS_ADOPTED = 'records.adopted';

export interface SealedRecordsOptions {
  readonly dataDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Keeps records in a bounded file while the service is sealed, and nothing can be written to the chain: above
 * all, each access to export. {@link adopt} adds the file to the chain when the service is unsealed.
 *
 * Writes are batched, and callers do not wait for them. Only one process writes the file; the data folder is
 * not shared.
 */
export class SealedRecords implements AsyncDisposable {
  readonly #options: SealedRecordsOptions;
  readonly #path: string;
  #file: SealedFile | undefined;
  /** Whether there may be a file; that of an earlier process at first. */
  #mayExist = true;
  #waiting: string[] = [];
  #waitingBytes = 0;
  /** Records that are not counted in the file yet. */
  #dropped = 0;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: SealedRecordsOptions) {
    this.#options = options;
    this.#path = join(options.dataDir, FILE_NAME);
  }

  /** Never throws. A record that does not fit is counted. */
  record(draft: AuditDraft): void {
    const line = `${JSON.stringify(draft)}\n`;
    const bytes = Buffer.byteLength(line);
    if (this.#waiting.length === 0) void this.#inTurn(() => this.#writeAll());
    else if (this.#waitingBytes + bytes > WAITING_BYTES_MAX) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(line);
    this.#waitingBytes += bytes;
  }

  /**
   * Adds the file to the chain, as one CRITICAL record with its hash, and renames it after that hash. After a
   * crash in between, the next call finds the record by the hash and does not write it twice. Does nothing
   * when there is no file.
   *
   * Never rejects: the file stays in place until a later call succeeds.
   */
  adopt(store: Pick<AuditStore, 'appendAuditOnce'>): Promise<void> {
    if (!this.#mayExist) return Promise.resolve();
    return this.#inTurn(() => this.#adopt(store));
  }

  /** Writes the waiting lines and closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    await this.#close();
  }

  /** Runs work after the one before it. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.then(work).catch((error: unknown) => {
      const { logger } = this.#options;
      logger.error({ err: error, dropped: this.#dropped }, 'records of the sealed service could not be kept');
    });
    return this.#turn;
  }

  /** Lines that cannot be written count as dropped. */
  async #writeAll(): Promise<void> {
    this.#mayExist = true;
    const lines = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#dropped += lines.length;
    this.#file ??= await SealedFile.open(this.#path);
    this.#dropped -= await this.#file.append(lines);
    await this.#file.drop(this.#dropped);
    this.#dropped = 0;
  }

  async #adopt(store: Pick<AuditStore, 'appendAuditOnce'>): Promise<void> {
    await this.#close();
    const summary = await summarise(this.#path);
    if (summary !== undefined && (summary.lines > 0 || summary.dropped > 0)) {
      const { clock, dataDir } = this.#options;
      try {
        const more = { severity: 'CRITICAL', detail: { ...summary } } as const;
        await store.appendAuditOnce(draftNow({ clock }, SYSTEM, RECORDS_ADOPTED, more));
      } catch (error) {
        // Sealed again, or still.
        if (hasCode(error, 'sealed')) return;
        throw error;
      }
      await rename(this.#path, join(dataDir, `sealed-records-${summary.sha256}.jsonl`));
    } else await rm(this.#path, { force: true });
    this.#mayExist = false;
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

/** The open file: a header with the number of records that it lacks, then lines. */
class SealedFile {
  readonly #handle: FileHandle;
  #sizeBytes: number;
  #dropped: number;

  private constructor(handle: FileHandle, sizeBytes: number, dropped: number) {
    this.#handle = handle;
    this.#sizeBytes = sizeBytes;
    this.#dropped = dropped;
  }

  /** Opens or creates it (mode 0600), to append to what an earlier period left in it. */
  static async open(path: string): Promise<SealedFile> {
    const handle = await openOrCreate(path);
    try {
      const text = await handle.readFile('latin1');
      const dropped = HEADER.exec(text)?.[1];
      if (dropped === undefined) await handle.write(headerOf(0), 0);
      const file = new SealedFile(handle, Math.max(HEADER_BYTES, text.length), Number(dropped ?? 0));
      // A crash cut the last line short.
      if (dropped !== undefined && !text.endsWith('\n')) await handle.write('\n', file.#sizeBytes++);
      return file;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * Appends the lines that fit.
   *
   * @returns their number. @throws when they could not be written; the next ones go to the same position.
   */
  async append(lines: readonly string[]): Promise<number> {
    const fitting: string[] = [];
    let endBytes = this.#sizeBytes;
    for (const line of lines) {
      const next = endBytes + Buffer.byteLength(line);
      if (next > SEALED_FILE_BYTES_MAX) continue;
      fitting.push(line);
      endBytes = next;
    }
    const bytes = Buffer.from(fitting.join(''), 'utf8');
    const { bytesWritten } = await this.#handle.write(bytes, 0, bytes.length, this.#sizeBytes);
    if (bytesWritten < bytes.length) throw new Error('the disk wrote only a part');
    this.#sizeBytes = endBytes;
    return fitting.length;
  }

  /** Counts further records that the file lacks. Then all of it is durable. */
  async drop(count: number): Promise<void> {
    if (count > 0) await this.#handle.write(headerOf(this.#dropped + count), 0);
    this.#dropped += count;
    await this.#handle.datasync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

async function summarise(path: string) {
  const hash = createHash('sha256');
  let lines = -1; // The header is not a record.
  let header = '';
  let lastByte = 10;
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      if (header.length < HEADER_BYTES) header += chunk.toString('latin1', 0, HEADER_BYTES - header.length);
      lastByte = chunk.at(-1) ?? lastByte;
      for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) lines++;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const dropped = Number(HEADER.exec(header)?.[1] ?? 0);
  if (lastByte !== 10) lines++; // A crash cut it short, but it is counted.
  return { sha256: hash.digest('hex'), lines: Math.max(0, lines), dropped };
}

/** Not append mode, in which Linux ignores the offset of the header. */
async function openOrCreate(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'wx+', 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return open(path, 'r+');
  }
}

function headerOf(dropped: number): string {
  return `{"format":1,"dropped":"${String(dropped).padStart(12, '0')}"}\n`;
}
