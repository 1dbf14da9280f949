import assert from 'node:assert/strict';
import { close, constants, fstat, open, read } from 'node:fs';
import { mkdir, open as openFile, readdir, rename, unlink } from 'node:fs/promises';
import { promisify } from 'node:util';
import { AppError } from '@bundoc/shared/errors';
import { LogThread } from './log-thread.ts';
import type { LogDisk, LogFile } from './ports.ts';

const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

const openDescriptor = promisify(open);
const closeDescriptor = promisify(close);
const statDescriptor = promisify(fstat);
const readDescriptor = promisify(read);

/** The real disk of a log, by `node:fs`; frames are written by a thread of its own. Files and folders are for the service's own user alone. */
export class NodeLogDisk implements LogDisk, AsyncDisposable {
  #thread: LogThread | undefined;

  list(directory: string): Promise<string[] | undefined> {
    return guarded(() => absentAs(undefined, readdir(directory)));
  }

  makeDirectory(path: string): Promise<boolean> {
    return guarded(async () => {
      try {
        await mkdir(path, { mode: DIRECTORY_MODE });
        return true;
      } catch (error) {
        if (codeOf(error) === 'EEXIST') return false;
        throw error;
      }
    });
  }

  createFile(path: string, content: Buffer | AsyncIterable<Buffer>): Promise<void> {
    return guarded(async () => {
      await using file = await openFile(path, 'wx', FILE_MODE);
      if (Buffer.isBuffer(content)) await file.writeFile(content);
      else for await (const piece of content) await file.writeFile(piece);
      await file.sync();
    });
  }

  rename(from: string, to: string): Promise<void> {
    return guarded(() => rename(from, to));
  }

  remove(path: string): Promise<boolean> {
    return guarded(() =>
      absentAs(
        false,
        unlink(path).then(() => true),
      ),
    );
  }

  syncDirectory(path: string): Promise<void> {
    return guarded(async () => {
      await using directory = await openFile(path, constants.O_RDONLY | constants.O_DIRECTORY);
      await directory.sync();
    });
  }

  openLogFile(path: string): Promise<LogFile> {
    return guarded(async () => {
      // Each write is as good as one with an `fdatasync` behind it.
      const descriptor = await openDescriptor(path, constants.O_RDWR | constants.O_DSYNC);
      const { size } = await statDescriptor(descriptor);
      return {
        bytes: size,
        read: (offset, bytes) => guarded(() => readWhole(descriptor, offset, Math.min(bytes, size - offset))),
        writeDurably: (offset, bytes) => guarded(() => this.#write(descriptor, offset, bytes)),
        close: () => guarded(() => closeDescriptor(descriptor)),
      };
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

  /** A frame lies in the thread's buffer already; a header is copied there, piece by piece if need be. */
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

async function absentAs<T, A>(absent: A, operation: Promise<T>): Promise<T | A> {
  try {
    return await operation;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return absent;
    throw error;
  }
}

async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    const code = codeOf(error);
    throw new AppError(code === 'ENOSPC' || code === 'EDQUOT' ? 'disk_full' : 'storage_unavailable', {
      cause: error,
    });
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
