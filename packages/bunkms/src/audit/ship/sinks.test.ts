import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fileSink, outputSink } from './sinks.ts';

const { signal } = new AbortController();
/** Neither a file nor standard output has it. */
const PLACE = { first: 1, last: 1, epoch: 0 };
let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-sinks-'));
  path = join(folder, 'target');
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('a file', () => {
  it('is created for its owner only, and appended to', async () => {
    const sink = fileSink(path);
    await sink.append(['a\n', 'b\n'], signal, PLACE);
    await sink.close();
    const again = fileSink(path);
    await again.append(['c\n'], signal, PLACE);
    await again.close();
    expect(readFileSync(path, 'utf8')).toBe('a\nb\nc\n');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(sink.target).toBe(`file:${path}`);
  });

  it('a file with a torn last line gets a line end before the next record', async () => {
    writeFileSync(path, 'a\nhal');
    const sink = fileSink(path);
    await sink.append(['b\n'], signal, PLACE);
    await sink.close();
    expect(readFileSync(path, 'utf8')).toBe('a\nhal\nb\n');
  });

  it('a file that was truncated in place continues at its start', async () => {
    const sink = fileSink(path);
    await sink.append(['a\n'], signal, PLACE);
    writeFileSync(path, '');
    await sink.append(['b\n'], signal, PLACE);
    await sink.close();
    expect(readFileSync(path, 'utf8')).toBe('b\n');
  });

  it.each(['a pipe', 'a folder', 'in a folder that is gone'])(
    'a file that is %s is refused without blocking',
    async (what) => {
      if (what === 'a pipe') execFileSync('mkfifo', [path]);
      const target = what === 'a folder' ? folder : what === 'a pipe' ? path : join(folder, 'none', 'target');
      await expect(fileSink(target).append(['a\n'], signal, PLACE)).rejects.toThrow();
    },
  );
});

describe('standard output', () => {
  const { O_RDONLY, O_NONBLOCK } = constants;

  it('standard output with a stalled reader is waited for, and every line arrives complete', async () => {
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, O_RDONLY | O_NONBLOCK);
    const sink = outputSink(path);
    const lines = Array.from({ length: 3_000 }, (_, n) => `${n}:${'x'.repeat(n % 100)}\n`);
    lines.push(`${'y'.repeat(20_000)}\n`);
    let isDone = false;
    const appending = sink.append(lines, signal, PLACE).then(() => {
      isDone = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(isDone).toBe(false);
    let text = '';
    const buffer = Buffer.alloc(65_536);
    const readSome = () => {
      try {
        text += buffer.toString('utf8', 0, readSync(reader, buffer));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
      return text.length;
    };
    await expect.poll(readSome, { interval: 1 }).toBe(lines.join('').length);
    await appending;
    expect(text).toBe(lines.join(''));
    await sink.close();
    closeSync(reader);
  });

  it('standard output with a stalled reader does not delay the stop', async () => {
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, O_RDONLY | O_NONBLOCK);
    const stop = new AbortController();
    const sink = outputSink(path);
    const appending = sink.append(
      Array.from({ length: 100 }, () => `${'x'.repeat(4_000)}\n`),
      stop.signal,
      PLACE,
    );
    stop.abort();
    await expect(appending).rejects.toThrow();
    await sink.close();
    closeSync(reader);
  });

  it('standard output that cannot be opened a second time is written to directly', async () => {
    const fd = openSync(path, 'a');
    const sink = outputSink(join(folder, 'none', 'stdout'), fd);
    await sink.append(['a\n', 'b\n'], signal, PLACE);
    await sink.close();
    closeSync(fd);
    expect(readFileSync(path, 'utf8')).toBe('a\nb\n');
  });
});
