import type { Figure } from '@bundoc/shared/contract/query';
import { expect } from 'vitest';
import type { GroupResult } from '../queries/aggregate.ts';
import { writeValue } from '../values/write-value.ts';
import { type Naive, naiveCompare, naiveMatches, naiveOf, naiveValues, SCALE } from './naive-query.ts';

/** A second, slow computation of figures, written from docs/query.md alone for the tests to compare with. */
interface NaiveGroup {
  readonly values: readonly (Naive | undefined)[];
  readonly documents: Naive[];
}

function firstAt(document: Naive, field: string): Naive | undefined {
  return naiveValues(document, field.split('.'))[0];
}

function groupsOf(all: readonly Naive[], groupBy: readonly string[]): NaiveGroup[] {
  const groups: NaiveGroup[] = groupBy.length === 0 ? [{ values: [], documents: [] }] : [];
  for (const document of all) {
    const values = groupBy.map((field) => firstAt(document, field));
    const order = (group: NaiveGroup) =>
      values.map((value, at) => naiveCompare(group.values[at], value)).find((one) => one !== 0) ?? 0;
    const group = groups.find((one) => order(one) === 0);
    if (group === undefined) groups.push({ values, documents: [document] });
    else group.documents.push(document);
  }
  return groups.sort(
    (a, b) => a.values.map((value, at) => naiveCompare(value, b.values[at])).find((one) => one !== 0) ?? 0,
  );
}

/** The fraction `units / (count * 10^SCALE)` with 34 digits, half to even: digit by digit, as on paper. */
function quotientText(units: bigint, count: bigint): string {
  let rest = units < 0n ? -units : units;
  let divisor = count * 10n ** BigInt(SCALE);
  let exponent = 0;
  if (rest === 0n) return '0e0';
  while (rest >= 10n * divisor) [divisor, exponent] = [divisor * 10n, exponent + 1];
  while (rest < divisor) [rest, exponent] = [rest * 10n, exponent - 1];
  let digits = 0n;
  for (let at = 0; at < 34; at++) {
    digits = digits * 10n + rest / divisor;
    rest = (rest % divisor) * 10n;
  }
  const half = 5n * divisor;
  if (rest > half || (rest === half && digits % 2n === 1n)) digits += 1n;
  return normal(`${units < 0n ? '-' : ''}${digits}e${exponent - 33}`);
}

/** One spelling for each number: whole digits without zeros at the end, and an exponent. */
function normal(text: string): string {
  const [, sign = '', whole = '', part = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e(.+))?$/.exec(text) ?? [];
  const digits = `${whole}${part}`.replace(/^0+/, '');
  const kept = digits.replace(/0+$/, '');
  if (kept === '') return '0e0';
  return `${sign}${kept}e${Number(exponent) - part.length + digits.length - kept.length}`;
}

const count = (many: number): Naive => ({ n: BigInt(many) * 10n ** BigInt(SCALE) });

/** The first value that at least so many percent of all do not exceed, found by trying each. */
function percentileOf(sorted: readonly Naive[], percent: number): Naive {
  const { n } = naiveOf(String(percent)) as { readonly n: bigint };
  const wanted = n * BigInt(sorted.length);
  const isEnough = (many: number) => BigInt(many) * 100n * 10n ** BigInt(SCALE) >= wanted;
  return sorted.find((_, at) => isEnough(at + 1)) ?? null;
}

const different = (sorted: readonly Naive[]) =>
  sorted.filter((value, at) => at === 0 || naiveCompare(sorted[at - 1], value) !== 0);

/** The name of the figure at a place, for conditions on it. */
export const nameOf = (at: number) => `f${at}`;

function figureOf(figure: Figure, documents: readonly Naive[]): Naive | string {
  if (figure.op === 'count') return count(documents.length);
  const all = documents
    .map((document) => firstAt(document, figure.field))
    .filter((value) => value !== undefined && value !== null)
    .sort(naiveCompare) as Naive[];
  const units = all.flatMap((value) => (typeof value === 'object' && value && 'n' in value ? [value.n] : []));
  const sum = units.reduce((total, one) => total + one, 0n);
  switch (figure.op) {
    case 'sum':
      return { n: sum };
    case 'avg':
      return units.length === 0 ? null : quotientText(sum, BigInt(units.length));
    case 'min':
      return all[0] ?? null;
    case 'max':
      return all.at(-1) ?? null;
    case 'distinct':
      return different(all);
    case 'countDistinct':
      return count(different(all).length);
    case 'percentile':
      return percentileOf(all, figure.percent);
  }
}

/**
 * Expects an aggregation's groups to be those of the naive computation, in the same order.
 *
 * @param having a condition on figures by the names that {@link nameOf} gives, none of which is an average.
 */
export function expectGroups(
  found: readonly GroupResult[],
  all: readonly Naive[],
  groupBy: readonly string[],
  figures: readonly Figure[],
  having: string,
): void {
  const expected = groupsOf(all, groupBy).filter(({ documents }) => {
    const known = figures.flatMap((figure, at): [string, Naive][] =>
      figure.op === 'avg' ? [] : [[nameOf(at), figureOf(figure, documents) as Naive]],
    );
    return naiveMatches(new Map(known), naiveOf(having));
  });
  expect(found.length).toBe(expected.length);
  for (const [at, { values, documents }] of expected.entries()) {
    for (const [place, value] of values.entries()) {
      const other = found[at]?.values[place];
      expect(naiveCompare(other === undefined ? undefined : naiveOf(writeValue(other)), value)).toBe(0);
    }
    for (const [place, figure] of figures.entries()) {
      const text = writeValue(found[at]?.figures[place] ?? null);
      const wanted = figureOf(figure, documents);
      if (typeof wanted === 'string' && figure.op === 'avg') expect(normal(text)).toBe(wanted);
      else expect([figure, text, naiveCompare(naiveOf(text), wanted)]).toEqual([figure, text, 0]);
    }
  }
}
