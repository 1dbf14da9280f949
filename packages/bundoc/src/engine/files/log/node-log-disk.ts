import assert from 'node:assert/strict';
import { close, constants, fstatSync, read } from 'node:fs';
import { promisify } from 'node:util';
import { AppError } from '@bundoc/shared/contract/app-error';
import { codeOf, type DataFolder, requireFile, UnsafeEntry } from '@bundoc/shared/files/data-folder';
import { LogThread } from './log-thread.ts';
import type { LogDisk, LogFile } from './ports.ts';
import { LogDamaged } from './scan.ts';

const closeDescriptor = promisify(close);
const readDescriptor = promisify(read);

/** Maximum size of a file of a log: a segment has 16 MiB, and a carried file hardly more. */
const LOG_FILE_BYTES_MAX = 33_554_432;

/** Names and folders, accessed through the disk of the data folder. */
export type LogEntries = Omit<LogDisk, 'openLogFile' | 'frameBuffer'>;

/**
 * The real disk of a log. It opens files below the data folder without following links, and writes frames
 * with a separate thread. One for each log.
 */
export class NodeLogDisk implements LogDisk, AsyncDisposable {
  readonly #entries: LogEntries;
  readonly #folder: DataFolder;
  #thread: LogThread | undefined;

  /** @param folder the data folder, which its opener closes after the log. */
  constructor(entries: LogEntries, folder: DataFolder) {
    this.#entries = entries;
    this.#folder = folder;
  }

  list(directory: string): Promise<string[] | undefined> {
    return this.#entries.list(directory);
  }

  makeDirectory(path: string): Promise<boolean> {
    return this.#entries.makeDirectory(path);
  }

  createFile(path: string, content: Buffer | AsyncIterable<Buffer>): Promise<void> {
    return this.#entries.createFile(path, content);
  }

  rename(from: string, to: string): Promise<void> {
    return this.#entries.rename(from, to);
  }

  remove(path: string): Promise<boolean> {
    return this.#entries.remove(path);
  }

  syncDirectory(path: string): Promise<void> {
    return this.#entries.syncDirectory(path);
  }

  /** @throws LogDamaged for a file that is not regular, or too large for a log. */
  openLogFile(path: string): Promise<LogFile> {
    return guarded(async () => {
      const below = this.#folder.below(path);
      // Each write is as durable as one followed by `fdatasync`.
      const descriptor = this.#folder.openSync(below, constants.O_RDWR | constants.O_DSYNC);
      try {
        const stats = fstatSync(descriptor);
        requireFile(below, stats, LOG_FILE_BYTES_MAX);
        return this.#fileOf(descriptor, stats.size);
      } catch (error) {
        await closeDescriptor(descriptor);
        throw error;
      }
    });
  }

  frameBuffer(bytes: number): Buffer {
    assert(this.#thread === undefined, 'one log, one buffer');
    this.#thread = new LogThread(bytes);
    return this.#thread.buffer;
  }

  /** Ends the thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread?.stop();
  }

  #fileOf(descriptor: number, size: number): LogFile {
    return {
      bytes: size,
      read: (offset, bytes) => guarded(() => readWhole(descriptor, offset, Math.min(bytes, size - offset))),
      writeDurably: (offset, bytes) => guarded(() => this.#write(descriptor, offset, bytes)),
      close: () => guarded(() => closeDescriptor(descriptor)),
    };
  }

  /** A frame is already in the thread's buffer; a header is copied there, in pieces if it is long. */
  async #write(descriptor: number, offset: number, bytes: Buffer): Promise<void> {
    const thread = this.#thread;
    assert(thread !== undefined, 'the buffer is made before anything is written');
    const { buffer } = thread;
    if (bytes.buffer === buffer.buffer) return thread.write(descriptor, offset, bytes.length);
    for (let at = 0; at < bytes.length; at += buffer.length) {
      const piece = bytes.copy(buffer, 0, at, Math.min(bytes.length, at + buffer.length));
      await thread.write(descriptor, offset + at, piece);
    }
  }
}

async function readWhole(descriptor: number, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(Math.max(0, bytes));
  let done = 0;
  while (done < buffer.length) {
    const { bytesRead } = await readDescriptor(descriptor, buffer, done, buffer.length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return buffer.subarray(0, done);
}

async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    if (error instanceof UnsafeEntry) throw new LogDamaged(error.message, { cause: error });
    const code = codeOf(error);
    throw new AppError(code === 'ENOSPC' || code === 'EDQUOT' ? 'disk_full' : 'storage_unavailable', {
      cause: error,
    });
  }
}
