import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import type { AuditDraft } from '../records/chain.ts';
import type { AuditStore } from '../store/audit.ts';

/** Maximum bytes of the file. Later records are only counted. */
export const SEALED_FILE_BYTES_MAX = 1_048_576;
/** Maximum bytes that may wait for the disk. Records beyond it are only counted. */
const WAITING_BYTES_MAX = 262_144;
const FILE_NAME = 'sealed-refusals.jsonl';
/** The first line. It has a fixed length, so that the count in it can be overwritten. */
const HEADER = /^\{"format":1,"dropped":"(\d{12})"\}\n/;
const HEADER_BYTES = headerOf(0).length;

/**
 * Keeps accesses to export in a bounded file while the service is sealed and has no chain key. {@link
 * adoptSealedRefusals} adds the file to the chain when the service is unsealed.
 *
 * Writes are batched, and callers do not wait for them. Only one process writes the file; the data folder is
 * not shared.
 */
export class SealedRefusals implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #logger: Logger;
  #sizeBytes: number;
  #dropped: number;
  #droppedWritten: number;
  #waiting = '';
  #writing: Promise<void> | undefined;

  private constructor(file: FileHandle, sizeBytes: number, dropped: number, logger: Logger) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
    this.#dropped = dropped;
    this.#droppedWritten = dropped;
    this.#logger = logger;
  }

  /** Opens the file (mode 0600), and appends to what an earlier sealed start left in it. */
  static async open(dataDir: string, logger: Logger): Promise<SealedRefusals> {
    const path = join(dataDir, FILE_NAME);
    const file = await openOrCreate(path);
    const text = await file.readFile('latin1');
    const dropped = HEADER.exec(text)?.[1];
    if (dropped === undefined) {
      await file.write(headerOf(0), 0);
      return new SealedRefusals(file, Math.max(HEADER_BYTES, text.length), 0, logger);
    }
    const refusals = new SealedRefusals(file, text.length, Number(dropped), logger);
    if (!text.endsWith('\n')) refusals.#waiting = '\n'; // A crash cut the last line short.
    return refusals;
  }

  /** Never throws. A record that does not fit is counted. */
  record(draft: AuditDraft): void {
    const line = `${JSON.stringify(draft)}\n`;
    const bytes = Buffer.byteLength(line);
    const waitingBytes = Buffer.byteLength(this.#waiting);
    const fits = this.#sizeBytes + waitingBytes + bytes <= SEALED_FILE_BYTES_MAX;
    if (fits && waitingBytes + bytes <= WAITING_BYTES_MAX) this.#waiting += line;
    else this.#dropped++;
    this.#writing ??= this.#writeAll();
  }

  /** Writes the waiting lines and closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    await this.#file.close();
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#waiting !== '' || this.#dropped !== this.#droppedWritten) {
        await this.#writeLines();
        const dropped = this.#dropped;
        if (dropped !== this.#droppedWritten) await this.#file.write(headerOf(dropped), 0);
        this.#droppedWritten = dropped;
        await this.#file.datasync();
      }
    } catch (error) {
      this.#logger.error(
        { err: error, dropped: this.#dropped },
        'refusals of the sealed service could not be written',
      );
    } finally {
      this.#writing = undefined;
    }
  }

  /** Lines that cannot be written count as dropped. The next ones go to the same position. */
  async #writeLines(): Promise<void> {
    const bytes = Buffer.from(this.#waiting, 'utf8');
    this.#waiting = '';
    if (bytes.length === 0) return;
    try {
      const { bytesWritten } = await this.#file.write(bytes, 0, bytes.length, this.#sizeBytes);
      if (bytesWritten < bytes.length) throw new Error('the disk wrote only a part');
      this.#sizeBytes += bytes.length;
    } catch (error) {
      this.#dropped += bytes.toString('utf8').split('\n').length - 1;
      throw error;
    }
  }
}

/**
 * Adds the file of a sealed period to the chain, as one CRITICAL record with its hash, and renames it after
 * that hash. After a crash in between, the next start finds the record by the hash and does not write it
 * twice.
 *
 * @throws AppError of the store, or the error of the file system; then the file stays in place.
 */
export async function adoptSealedRefusals(
  dataDir: string,
  store: Pick<AuditStore, 'appendAuditOnce'>,
  clock: Clock,
): Promise<void> {
  const path = join(dataDir, FILE_NAME);
  const summary = await summarise(path);
  if (summary === undefined) return;
  if (summary.lines === 0 && summary.dropped === 0) return rm(path);
  await store.appendAuditOnce({
    time: new Date(clock.now()).toISOString(),
    severity: 'CRITICAL',
    action: 'key.export',
    outcome: 'failed',
    actor: 'system',
    code: 'sealed',
    detail: { ...summary },
  });
  await rename(path, join(dataDir, `sealed-refusals-${summary.sha256}.jsonl`));
}

async function summarise(path: string) {
  const hash = createHash('sha256');
  let lines = -1; // The header is not a refusal.
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
