import { Histogram, Registry } from '@prometheus-io/client';
import { describe, expect, it } from 'vitest';
import { BOUNDS_S, RequestTimes } from './request-times.ts';

describe('RequestTimes', () => {
  it("exports the same series as the library's own histogram for the same observations", async () => {
    const own = new Registry();
    const times = new RequestTimes('requests', own);
    const reference = new Registry();
    const histogram = new Histogram({
      name: 'requests',
      help: 'Time from a request to its answer.',
      labelNames: ['listener', 'route', 'method', 'status'],
      buckets: [...BOUNDS_S],
      registers: [reference],
    });

    const recorders = { api: times.recorderOf('api'), internal: times.recorderOf('internal') };
    for (const [listener, route, method, status, seconds] of [
      ['api', '/a/:id', 'GET', 200, 0.0005],
      ['internal', '/a/:id', 'GET', 200, 0.0005],
      ['api', '/a/:id', 'GET', 200, 0.001],
      ['api', '/a/:id', 'GET', 200, 0.3],
      ['api', '/a/:id', 'GET', 404, 7],
      ['api', '/a/:id', 'PUT', 200, 0.02],
    ] as const) {
      recorders[listener](route, method, status, seconds);
      histogram.observe({ listener, route, method, status }, seconds);
    }

    const lines = async (registry: Registry) =>
      (await registry.metrics()).split('\n').map(withSortedLabels).sort();
    expect(await lines(own)).toEqual(await lines(reference));
    expect((await lines(own)).length).toBeGreaterThan(3 * BOUNDS_S.length);
  });
});

it('has the series of awaited answers before the first of them', async () => {
  const registry = new Registry();
  const awaited = [{ route: '/a/:id', method: 'DELETE', statuses: [429, 503] }];
  const record = new RequestTimes('requests', registry).recorderOf('api', awaited);
  const counts = async () =>
    Array.from((await registry.metrics()).matchAll(/^requests_count\{.*status="(\d+)"\} (\d+)$/gm), (found) =>
      found.slice(1),
    );
  expect(await counts()).toEqual([
    ['429', '0'],
    ['503', '0'],
  ]);
  record('/a/:id', 'DELETE', 503, 0.1);
  expect(await counts()).toEqual([
    ['429', '0'],
    ['503', '1'],
  ]);
});

/** The order of labels has no meaning. */
function withSortedLabels(line: string): string {
  return line.replace(/\{(.*)\}/, (_all, labels: string) => `{${labels.split(',').sort().join(',')}}`);
}
