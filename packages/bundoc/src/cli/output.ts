import { type Column, Table } from '@bundoc/shared/cli/table';
import { printable } from '@bundoc/shared/runtime/printable';

/** Anyone who reads standard output has closed it, as `head` does: the command ends, and nothing is wrong. */
export class OutputClosed extends Error {
  override readonly name = 'OutputClosed';
}

const WIDTH_DEFAULT = 80;
let isHeard = false;

/** Whether a person reads standard output. */
export function isTerminal(): boolean {
  return process.stdout.isTTY === true;
}

/** Writes to standard output, as it is; resolves once it was taken. @throws OutputClosed */
export async function write(content: string | Uint8Array): Promise<void> {
  if (content.length === 0) return;
  if (!isHeard) {
    isHeard = true;
    // The callback tells of the error; without a listener it would end the process as well.
    process.stdout.on('error', () => undefined);
  }
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(content, (error) => {
      if (error === undefined || error === null) resolve();
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE')
        reject(new OutputClosed('', { cause: error }));
      else reject(error);
    });
  });
}

/**
 * A JSON text: as it is for a program; for a person with a line break behind it, and nothing in it that
 * commands the terminal.
 */
export function writeText(text: string): Promise<void> {
  if (!isTerminal()) return write(text);
  const parts = text
    .split(/([\n\t])/)
    .map((part) => (part === '\n' || part === '\t' ? part : printable(part)));
  return write(`${parts.join('')}\n`);
}

/** Rows as a command gives them. */
export interface Listing<T> {
  readonly columns: readonly Column<T>[];
  /** The JSON text of a row, without line breaks. */
  readonly json: (row: T) => string;
}

/** Writes rows, some at a time: a table on a terminal; NDJSON where a program reads, or with `--json`. */
export function rowWriter<T>(
  { columns, json }: Listing<T>,
  options: { readonly json?: true },
): (rows: readonly T[]) => Promise<void> {
  if (options.json || !isTerminal()) return (rows) => write(rows.map((row) => `${json(row)}\n`).join(''));
  const table = new Table(columns, process.stdout.columns ?? WIDTH_DEFAULT);
  return (rows) =>
    write(
      table
        .lines(rows)
        .map((line) => `${line}\n`)
        .join(''),
    );
}

/** JSON text on one line: line breaks stand between its tokens only, and are as good as spaces there. */
export function onOneLine(text: string): string {
  return text.replace(/[\r\n]+/g, ' ');
}
