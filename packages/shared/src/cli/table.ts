import { printable } from '../logs/printable.ts';
/** A column of a table. */
export interface Column<T> {
  readonly head: string;
  readonly cell: (row: T) => string;
  /** Numbers are right-aligned. */
  readonly align?: 'left' | 'right';
}

const GAP = '  ';

/**
 * A table whose rows come in batches. The header comes first, and columns never become narrower. Control
 * characters are escaped as in JSON.
 */
export class Table<T> {
  readonly #columns: readonly Column<T>[];
  readonly #widthMax: number;
  #widths: number[] | undefined;

  /** @param width maximum characters of a line; no limit when undefined, or 0 as some terminals say. */
  constructor(columns: readonly Column<T>[], width?: number) {
    this.#columns = columns;
    this.#widthMax = width || Number.POSITIVE_INFINITY;
  }

  /** The lines of a batch of rows, after the header if it is the first batch. */
  lines(rows: readonly T[]): string[] {
    const body = rows.map((row) => this.#columns.map(({ cell }) => printable(cell(row))));
    const head = this.#columns.map((column) => column.head);
    const isFirst = this.#widths === undefined;
    const widths = (this.#widths ?? head.map(lengthOf)).map((width, at) =>
      Math.max(width, ...body.map((cells) => lengthOf(cells[at] ?? ''))),
    );
    this.#widths = widths;
    return (isFirst ? [head, ...body] : body).map((cells) =>
      cut(this.#lineOf(cells, widths), this.#widthMax),
    );
  }

  #lineOf(cells: readonly string[], widths: readonly number[]): string {
    const padded = cells.map((cell, at) => {
      const space = ' '.repeat((widths[at] ?? 0) - lengthOf(cell));
      return this.#columns[at]?.align === 'right' ? space + cell : cell + space;
    });
    return padded.join(GAP).trimEnd();
  }
}

/**
 * The lines of a table that fits the terminal, else a block for each row, with a line for each cell.
 *
 * @param width maximum characters of a line; a table when undefined or 0.
 */
export function tableOrBlocks<T>(
  columns: readonly Column<T>[],
  rows: readonly T[],
  width?: number,
): string[] {
  const lines = new Table(columns).lines(rows);
  if (!width || lines.every((line) => lengthOf(line) <= width)) return lines;
  if (rows.length === 0) return new Table(columns, width).lines(rows);
  const label = Math.max(...columns.map(({ head }) => head.length)) + GAP.length;
  return rows.flatMap((row, at) => [
    ...(at === 0 ? [] : ['']),
    ...columns.flatMap(({ head, cell }) =>
      brokenAtCommas(printable(cell(row)), width - label).map(
        (part, line) => (line === 0 ? head : '').padEnd(label) + part,
      ),
    ),
  ]);
}

function brokenAtCommas(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const part of text.split(/(?<=,)/)) {
    const last = lines.at(-1);
    if (last === undefined || lengthOf(last + part) > width) lines.push(part);
    else lines[lines.length - 1] = last + part;
  }
  return lines;
}

function lengthOf(text: string): number {
  return [...text].length;
}

function cut(line: string, width: number): string {
  const marks = [...line];
  return marks.length <= width ? line : `${marks.slice(0, Math.max(0, width - 1)).join('')}…`;
}
