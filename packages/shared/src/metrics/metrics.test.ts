import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { fastify } from 'fastify';
import { describe, expect, it } from 'vitest';
import { counter, createServiceMetrics } from './metrics.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

describe('the metrics of a service', () => {
  it('include those of the process, for each service that runs in it', async () => {
    for (const prefix of ['a_', 'b_']) {
      const text = await createServiceMetrics(prefix).registry.metrics();
      for (const name of ['process_resident_memory_bytes', 'nodejs_eventloop_lag_p99_seconds'])
        expect(text).toMatch(new RegExp(`^${name} `, 'm'));
    }
  });

  it('show a total that is kept elsewhere unchanged, however often they are read', async () => {
    const { registry } = createServiceMetrics('a_');
    counter(registry, 'seen_total', 'Things seen.', () => 7);
    for (let n = 0; n < 3; n++) expect(await registry.metrics()).toMatch(/^seen_total 7$/m);
  });

  it('count failed requests from 0 on, and no probe of a service that is not ready', async () => {
    const metrics = createServiceMetrics('a_');
    const app = fastify();
    metrics.measureRequests(app, 'api');
    app.get('/fine', async () => 'fine');
    for (const [path, status] of [
      ['/ready', 503],
      ['/full', 507],
    ] as const)
      app.get(path, async (_request, reply) => reply.status(status).send());
    const counts = async () => {
      const text = await metrics.registry.metrics();
      const found = text.matchAll(/^a_http_failures_total\{listener="api",status="(\d+)"\} (\d+)$/gm);
      return Object.fromEntries(Array.from(found, ([, status, count]) => [status, Number(count)]));
    };
    expect(await counts()).toMatchObject({ 500: 0, 503: 0, 507: 0 });
    for (const path of ['/fine', '/ready', '/full', '/none']) await app.inject(path);
    expect(await counts()).toMatchObject({ 500: 0, 503: 0, 507: 1 });
    await app.close();
  });

  it('are garbage collected once nobody uses the service', async () => {
    const refs = Array.from({ length: 3 }, () => new WeakRef(createServiceMetrics('a_').registry));
    await setImmediate();
    collectGarbage();
    expect(refs.map((ref) => ref.deref())).toEqual([undefined, undefined, undefined]);
  });
});
