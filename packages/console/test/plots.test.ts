import { expect, it } from 'vitest';
import { fullestShare, rates, readsAndWrites, requestKinds } from '../src/plots/kinds.ts';
import { readMetrics } from '../src/plots/metrics.ts';

const look = (atMs: number, ...lines: readonly string[]) => ({
  atMs,
  series: readMetrics(['# HELP x y', ...lines, ''].join('\n')),
});

it('computes rates per second over all labels of a metric', () => {
  const before = look(1_000, 'x_total{a="1"} 10', 'x_total{a="2"} 5', 'x_total_other 99');
  const after = look(3_000, 'x_total{a="1"} 14', 'x_total{a="2"} 9', 'x_total_other 500');
  expect(rates('X', ['x'], ['x_total']).values(before, after)).toEqual([4]);
});

it('tells requests that open documents from those that seal them', () => {
  const count = (method: string, route: string, value: number) =>
    `d_count{listener="api",route="${route}",method="${method}",status="200"} ${value}`;
  const one = '/v1/projects/:project/collections/:collection/documents/:id';
  const query = '/v1/projects/:project/collections/:collection/query';
  const after = look(
    2_000,
    ...[
      count('GET', one, 3),
      count('POST', query, 5),
      count('PUT', one, 4),
      count('POST', '/v1/projects/:project/batch', 2),
    ],
    ...[count('GET', '/v1/projects', 70), count('POST', '/v1/tokens', 80)],
  );
  expect(readsAndWrites('d').values(look(0), after)).toEqual([4, 3]);
});

it('finds the share that is fullest in proportion to its capacity', () => {
  const now = look(
    1_000,
    ...['p_share_capacity{share="memory"} 1000', 'p_share_capacity{share="streams"} 4'],
    ...['p_share_held{share="memory"} 500', 'p_share_held{share="streams"} 3'],
  );
  expect(fullestShare('p_').values(now, now)).toEqual([75]);
  expect(fullestShare('p_').values(now, look(1_000))).toEqual([0]);
});

it('computes percentiles of the requests between two looks alone', () => {
  const buckets = (fast: number, slow: number) => [
    `d_bucket{route="a",le="0.1"} ${fast}`,
    `d_bucket{route="a",le="1"} ${fast + slow}`,
    `d_bucket{route="a",le="+Inf"} ${fast + slow}`,
    `d_count{route="a"} ${fast + slow}`,
  ];
  const [, latency] = requestKinds('d');
  const before = look(0, ...buckets(1_000, 0));
  expect(latency?.values(before, look(1_000, ...buckets(1_090, 10)))).toEqual([100, 1_000]);
  expect(latency?.values(before, before)).toEqual([undefined, undefined]);
});
