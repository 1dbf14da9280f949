import { isatty } from 'node:tty';
import { type DestinationStream, pino } from 'pino';
import { terminalLine } from './terminal-line.ts';

/** Takes complete lines. */
export interface LogOutput extends DestinationStream {
  /** Writes lines that are still buffered. Pino calls it for fatal ones. */
  flushSync(): void;
}

/**
 * Standard output: JSON, or readable lines on a terminal. The lines of one turn of the event loop are written
 * together at its end. A system call costs as much as the rest of a line. Writes are synchronous and happen
 * at the latest when the process exits, so that they do not wait for a reader that has gone.
 */
export function standardOutput(): LogOutput {
  const output = pino.destination({ dest: 1, sync: true });
  const isTerminal = isatty(1);
  const hasColours = !process.env['NO_COLOR'];
  let lines = '';
  let isFollowed = false;
  const flushSync = (): void => {
    const held = lines;
    lines = '';
    if (held !== '') output.write(held);
  };
  return {
    write: (line) => {
      // Registered at the first line: a process may have many loggers that never log.
      if (!isFollowed) process.once('exit', flushSync);
      isFollowed = true;
      if (lines === '') setImmediate(flushSync);
      lines += isTerminal ? `${terminalLine(line.trimEnd(), hasColours)}\n` : line;
    },
    flushSync,
  };
}
