import { CommandError } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { type Column, Table } from '@bundoc/shared/cli/table';
import { printable } from '@bundoc/shared/logs/printable';

const WIDTH_DEFAULT = 80;
let isHeard = false;

/** Whether a person reads standard output. */
export function isTerminal(): boolean {
  return process.stdout.isTTY === true;
}

/**
 * Writes to standard output; resolves once it has accepted the content.
 *
 * @throws CommandError with exit code 0 when the reader has closed it, as `head` does.
 */
export async function write(content: string | Uint8Array): Promise<void> {
  if (content.length === 0) return;
  if (!isHeard) {
    isHeard = true;
    // The callback reports the error; without a listener the event would also end the process.
    process.stdout.on('error', () => undefined);
  }
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(content, (error) => {
      if (error === undefined || error === null) resolve();
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE')
        reject(new CommandError('', { exitCode: 0, cause: error }));
      else reject(error);
    });
  });
}

/**
 * Writes a JSON text: unchanged for a program; for a person with a final line break and without terminal
 * control sequences.
 */
export function writeText(text: string): Promise<void> {
  if (!isTerminal()) return write(text);
  const parts = text
    .split(/([\n\t])/)
    .map((part) => (part === '\n' || part === '\t' ? part : printable(part)));
  return write(`${parts.join('')}\n`);
}

/** The rows that a command prints. */
export interface Listing<T> {
  readonly columns: readonly Column<T>[];
  /** The JSON text of a row, without line breaks. */
  readonly json: (row: T) => string;
}

/**
 * Returns a function that prints rows in groups: as a table on a terminal, otherwise or with `--json` as
 * NDJSON.
 */
export function rowWriter<T>(
  { columns, json }: Listing<T>,
  options: JsonOption,
): (rows: readonly T[]) => Promise<void> {
  if (options.json || !isTerminal()) return (rows) => write(rows.map((row) => `${json(row)}\n`).join(''));
  const table = new Table(columns, process.stdout.columns || WIDTH_DEFAULT);
  return (rows) =>
    write(
      table
        .lines(rows)
        .map((line) => `${line}\n`)
        .join(''),
    );
}

/**
 * Puts a JSON text on one line. Its line breaks can only be whitespace between tokens, so spaces replace
 * them.
 */
export function onOneLine(text: string): string {
  return text.replace(/[\r\n]+/g, ' ');
}
