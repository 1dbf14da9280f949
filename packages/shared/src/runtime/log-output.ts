import { isatty } from 'node:tty';
import { type DestinationStream, pino } from 'pino';
import { terminalLine } from './terminal-line.ts';

/**
 * Takes whole lines; what is still held is written by {@link LogOutput.flushSync}, which pino calls for fatal
 * lines.
 */
export interface LogOutput extends DestinationStream {
  flush(): void;
  flushSync(): void;
}

/**
 * Standard output: JSON, and for a terminal lines that a person reads. The lines of one turn of the event
 * loop are written together at its end: a call of the system for each costs as much as all else of a line.
 * They are written synchronously, at the exit of the process at the latest, so that they do not wait for a
 * reader that is gone.
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
      // At the first line: a process may have many loggers that never say anything.
      if (!isFollowed) process.once('exit', flushSync);
      isFollowed = true;
      if (lines === '') setImmediate(flushSync);
      lines += isTerminal ? `${terminalLine(line.trimEnd(), hasColours)}\n` : line;
    },
    flush: flushSync,
    flushSync,
  };
}
