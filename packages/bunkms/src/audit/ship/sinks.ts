import { constants, type Stats, write } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

/** The place of copied lines. */
export interface LinesPlace {
  /** The numbers of their first and last record. */
  readonly first: number;
  readonly last: number;
  /** When the chain was last restored, milliseconds. */
  readonly epoch: number;
}

/** A target of the copy of the audit chain. One call at a time. */
export interface ShipSink {
  /** Identifies the target in the position file. */
  readonly target: string;
  /** The variable that names it, for messages. */
  readonly variable: 'BUNKMS_AUDIT_SHIP' | 'BUNKMS_ARCHIVE';
  /**
   * Appends complete lines with their line ends. After a failure some of them may be written, the last one
   * partly.
   *
   * Resolves when they are as durable as the target can make them.
   */
  append(lines: readonly string[], signal: AbortSignal, place: LinesPlace): Promise<void>;
  /** What the target begins with; absent for one that cannot be read. */
  start?(): Promise<string>;
  close(): Promise<void>;
}

/**
 * A file that is only appended to, so that readers who follow it keep their place. If it was renamed, removed
 * or truncated, it is created again. A line that a crash or a full disk cut short is terminated and stays.
 *
 * Only a regular file is accepted: a pipe without a reader would block a thread, and with it the exit of the
 * process.
 */
export function fileSink(path: string): ShipSink {
  let file: FileHandle | undefined;
  const close = async () => {
    const open = file;
    file = undefined;
    await open?.close();
  };
  return {
    target: `file:${resolve(path)}`,
    variable: 'BUNKMS_AUDIT_SHIP',
    append: async (lines) => {
      try {
        if (file !== undefined && !(await isAt(path, await file.stat()))) await close();
        file ??= await openForAppend(path);
        await writeAll(file, Buffer.from(lines.join(''), 'utf8'));
        await file.datasync();
        // If it was removed during the write, the lines are lost. If it was renamed, they are in the renamed
        // file.
        if ((await file.stat()).nlink === 0) throw new Error('the file was removed while it was written to');
      } catch (error) {
        await close().catch(() => undefined);
        throw error;
      }
    },
    start: () => startOf(path),
    close,
  };
}

const NOT_A_FILE = 'the target is not a regular file: name one';
/** Enough for the longest record. */
const START_BYTES = 1_048_576;

async function startOf(path: string): Promise<string> {
  const { O_RDONLY, O_NONBLOCK } = constants;
  try {
    await using file = await open(path, O_RDONLY | O_NONBLOCK);
    if (!(await file.stat()).isFile()) throw new Error(NOT_A_FILE);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(START_BYTES), 0, START_BYTES, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

async function isAt(path: string, { dev, ino }: Stats): Promise<boolean> {
  try {
    const found = await stat(path);
    return found.dev === dev && found.ino === ino;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function openForAppend(path: string): Promise<FileHandle> {
  const { O_RDWR, O_APPEND, O_CREAT, O_NONBLOCK } = constants;
  const file = await open(path, O_RDWR | O_APPEND | O_CREAT | O_NONBLOCK, 0o600);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error(NOT_A_FILE);
    const last = Buffer.alloc(1);
    if (stats.size > 0) {
      await file.read(last, 0, 1, stats.size - 1);
      if (last[0] !== 0x0a) await writeAll(file, Buffer.from('\n'));
    }
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function writeAll(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at);
    at += bytesWritten;
  }
}

/** Bytes that a pipe accepts atomically (POSIX `PIPE_BUF` on Linux), so that log lines do not interleave. */
const PIPE_BYTES = 4_096;
/** How long to wait before retrying a full pipe, milliseconds. */
const FULL_PIPE_MS = 50;
const writeTo = promisify(write);

/**
 * Standard output. A stalled reader delays only the copy. The pipe is opened a second time in non-blocking
 * mode, if the system allows it; otherwise a write blocks in a separate thread.
 *
 * @param path to open a second time. Without that, `fd` is written to. Tests pass their own.
 */
export function outputSink(path = '/dev/stdout', fd = 1): ShipSink {
  let file: FileHandle | undefined;
  let isTorn = false;
  return {
    target: 'stdout',
    variable: 'BUNKMS_AUDIT_SHIP',
    append: async (lines, signal) => {
      const { O_WRONLY, O_APPEND, O_NONBLOCK } = constants;
      file ??= await open(path, O_WRONLY | O_APPEND | O_NONBLOCK).catch(() => undefined);
      for (const chunk of chunksOf(isTorn ? ['\n', ...lines] : lines)) {
        isTorn = true;
        for (let rest = Buffer.from(chunk, 'utf8'); rest.length > 0; )
          rest = rest.subarray(await writeSome(file?.fd ?? fd, rest, signal));
        isTorn = false;
      }
    },
    close: async () => {
      await file?.close();
      file = undefined;
    },
  };
}

async function writeSome(fd: number, bytes: Buffer, signal: AbortSignal): Promise<number> {
  for (;;) {
    try {
      return (await writeTo(fd, bytes, 0, Math.min(bytes.length, PIPE_BYTES))).bytesWritten;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await delay(FULL_PIPE_MS, undefined, { signal });
    }
  }
}

/** Groups complete lines up to the atomic size of a pipe. A longer line is a separate chunk. */
function* chunksOf(lines: readonly string[]): Generator<string> {
  let chunk = '';
  for (const line of lines) {
    if (chunk !== '' && Buffer.byteLength(chunk) + Buffer.byteLength(line) > PIPE_BYTES) {
      yield chunk;
      chunk = '';
    }
    chunk += line;
  }
  if (chunk !== '') yield chunk;
}
