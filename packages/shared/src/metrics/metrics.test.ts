import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
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

  it('are garbage collected once nobody uses the service', async () => {
    const refs = Array.from({ length: 3 }, () => new WeakRef(createServiceMetrics('a_').registry));
    await setImmediate();
    collectGarbage();
    expect(refs.map((ref) => ref.deref())).toEqual([undefined, undefined, undefined]);
  });
});
