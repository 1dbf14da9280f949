import { describe, expect, it } from 'vitest';
import { progressLine } from './progress-line.ts';

const FORMAT = '{part} {bar} {value}/{total} documents, {eta_formatted} left';
const EMPTY = '░'.repeat(40);

describe('a line of progress', () => {
  it('has the part, the bar, what is done of how much, and the time left', () => {
    const line = progressLine(FORMAT, { value: 25, total: 100, eta: 185 }, { part: 'copying' });
    expect(line).toBe(`copying ${'█'.repeat(10)}${'░'.repeat(30)} 25/100 documents, 3m 5s left`);
  });

  it.each([0, Number.NaN])(
    'has neither a total, an estimate nor a full bar while the total is %s',
    (total) => {
      for (const eta of ['NULL', 'INF', 0, 7])
        expect(progressLine(FORMAT, { value: 0, total, eta }, { part: 'copying' })).toBe(
          `copying ${EMPTY} 0 documents`,
        );
    },
  );

  it.each(['NULL', 'INF', Number.POSITIVE_INFINITY, Number.NaN, undefined])(
    'leaves out an estimate that is not a number of seconds: %s',
    (eta) => {
      expect(progressLine(FORMAT, { value: 0, total: 9, eta }, { part: 'copying' })).toBe(
        `copying ${EMPTY} 0/9 documents`,
      );
    },
  );

  it('shows seconds, minutes or hours, whichever tell most', () => {
    const left = (eta: number) => progressLine('{eta_formatted} left', { value: 1, total: 2, eta });
    expect([0, 40.4, 60, 3_599, 7_860].map(left)).toEqual([
      '0s left',
      '40s left',
      '1m 0s left',
      '59m 59s left',
      '2h 11m left',
    ]);
  });

  it('has a bar as long as a narrow terminal has room for, and none before it has any', () => {
    const at = (maxWidth: number) =>
      progressLine(FORMAT, { value: 5_000, total: 20_000, eta: 7_859, maxWidth }, { part: 'verifying' });
    expect(at(80)).toBe(`verifying ${'█'.repeat(9)}${'░'.repeat(27)} 5000/20000 documents, 2h 10m left`);
    expect(at(80)).toHaveLength(80);
    expect(at(20)).toBe('verifying  5000/20000 documents, 2h 10m left');
  });

  it('is never above 100 %, even when more is done than was expected', () => {
    expect(progressLine('{bar} {percentage}%', { value: 12, total: 9, eta: 0 })).toBe(
      `${'█'.repeat(40)} 100%`,
    );
  });
});
