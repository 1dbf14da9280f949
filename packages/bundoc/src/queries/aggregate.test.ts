import type { Figure } from '@bundoc/shared/contract/query';
import { describe, expect, it } from 'vitest';
import { ownWork } from '../work/scheduler.ts';
import { Aggregation } from './aggregate.ts';

const work = () => ownWork('p')('query');
const percentile = (percent: number): Figure => ({ op: 'percentile', field: 'ms', percent });

describe('figures of one field', () => {
  it('share the values that they keep, of as many documents as a request reads', async () => {
    const many = 100_000;
    const percents = [0.001, 50, 95, 99, 99.9];
    const aggregation = new Aggregation(
      [],
      [...percents.map(percentile), { op: 'countDistinct', field: 'ms' }, { op: 'count' }],
    );
    expect(aggregation.paths).toEqual([['ms'], []]);
    for (let n = 0; n < many; n++) aggregation.add([((n * 7_919) % many) + 0.5, undefined]);
    const [all] = await aggregation.results(work());
    expect(all?.figures).toEqual([0.5, 49_999.5, 94_999.5, 98_999.5, 99_899.5, many, many]);
  });

  it('are refused when they would repeat large values in the answer', async () => {
    const large = 'x'.repeat(4_000_000);
    const asked = async (figures: readonly Figure[]) => {
      const aggregation = new Aggregation([], figures);
      aggregation.add(figures.map(() => large));
      return (await aggregation.results(work())).length;
    };
    expect(await asked([percentile(50), percentile(95)])).toBe(1);
    const refusal = { code: 'query_too_expensive' };
    const percents = Array.from({ length: 20 }, (_, n) => percentile(n));
    await expect(asked(percents)).rejects.toMatchObject(refusal);
    const lists = Array.from({ length: 20 }, (): Figure => ({ op: 'distinct', field: 'ms' }));
    await expect(asked(lists)).rejects.toMatchObject(refusal);
  });
});
