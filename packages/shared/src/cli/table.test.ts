import { describe, expect, it } from 'vitest';
import { printable } from '../logs/printable.ts';
import { type Column, Table, tableOrBlocks } from './table.ts';

const COLUMNS: readonly Column<readonly [string, number]>[] = [
  { head: 'name', cell: ([name]) => name },
  { head: 'size', cell: ([, size]) => String(size), align: 'right' },
];

describe('a table', () => {
  it('has a header, and right-aligned numbers', () => {
    const rows = [['a', 1] as const, ['longer', 1_000] as const];
    expect(new Table(COLUMNS).lines(rows)).toEqual(['name    size', 'a          1', 'longer  1000']);
  });

  it('a table whose rows come in batches has one header, and its columns never become narrower', () => {
    const table = new Table(COLUMNS);
    expect(table.lines([['longer', 1_000]])).toEqual(['name    size', 'longer  1000']);
    expect(table.lines([['a', 1]])).toEqual(['a          1']);
    expect(new Table(COLUMNS).lines([])).toEqual(['name  size']);
  });

  it('is truncated to the width of the terminal, unless that is unknown', () => {
    expect(new Table(COLUMNS, 8).lines([['a-very-long-name', 1]])).toEqual(['name   …', 'a-very-…']);
    const whole = ['name              size', 'a-very-long-name     1'];
    for (const width of [0, undefined])
      expect(new Table(COLUMNS, width).lines([['a-very-long-name', 1]])).toEqual(whole);
  });

  it('becomes a block for each row where it does not fit, with long lists broken at commas', () => {
    const rows = [['a,bb,ccc', 1] as const, ['d', 1_000] as const];
    expect(tableOrBlocks(COLUMNS, rows, 14)).toEqual(new Table(COLUMNS).lines(rows));
    expect(tableOrBlocks(COLUMNS, rows)).toEqual(new Table(COLUMNS).lines(rows));
    expect(tableOrBlocks(COLUMNS, rows, 12)).toEqual([
      'name  a,bb,',
      '      ccc',
      'size  1',
      '',
      'name  d',
      'size  1000',
    ]);
    expect(tableOrBlocks(COLUMNS, [], 8)).toEqual(['name  s…']);
  });

  it('escapes control sequences for the terminal', () => {
    expect(printable('a\u001b[2Jb\u009bc\u202ed')).toBe('a\\u001b[2Jb\\u009bc\\u202ed');
    expect(new Table(COLUMNS).lines([['\u001b]0;x\u0007', 1]])[1]).not.toMatch(/\p{Cc}/u);
  });
});
