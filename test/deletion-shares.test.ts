import { systemClock } from '@bundoc/shared/runtime/clock';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/** Deletions that one token may begin at once: ten seconds' worth of `BUNKMS_DESTRUCTIONS_PER_TOKEN`. */
const AT_ONCE = 10;

describe('the deletions of one token', () => {
  let installation: Installation;
  let movedMs = 0;
  beforeAll(async () => {
    installation = await Installation.start({
      // Time stands still, so that no part of a rate comes back meanwhile.
      clock: { now: () => systemClock.now(), monotonic: () => movedMs },
    });
  });
  afterAll(() => installation[Symbol.asyncDispose]());

  const admin = () => installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  const write = (token: string, project: string) =>
    call(installation.url, `/v1/projects/${project}/collections/notes/documents/1`, {
      method: 'PUT',
      token,
      body: '{"v":1}',
    });
  const remove = (token: string, project: string) =>
    call(installation.url, `/v1/projects/${project}?confirm=${project}`, { method: 'DELETE', token });

  it('beyond its share are 429 with a time and change nothing, and do not delay those of another token', async () => {
    const [one, other] = [await admin(), await admin()];
    const names = Array.from({ length: AT_ONCE + 1 }, (_, n) => `one-${n}`);
    for (const name of [...names, 'other']) expect((await write(one, name)).status).toBe(201);
    for (const name of names.slice(0, AT_ONCE)) expect((await remove(one, name)).status).toBe(200);
    const late = `one-${AT_ONCE}`;
    const refused = await remove(one, late);
    const { code, detail } = refused.json();
    expect([refused.status, code, refused.headers['retry-after'], detail]).toEqual([
      ...[429, 'rate_limited', '1', 'your share of deletions is in use'],
    ]);
    // Nothing was recorded: the project is used as before.
    expect((await write(one, late)).status).toBe(200);
    expect((await remove(other, 'other')).status).toBe(200);
    movedMs += 1_000;
    expect((await remove(one, late)).status).toBe(200);
  });

  it('are a share in the metrics', async () => {
    const metrics = await installation.metrics();
    expect(metrics).toContain('bundoc_share_capacity{share="deletions"} 8');
    expect(metrics).toContain('bundoc_share_refusals_total{share="deletions",code="rate_limited"} 0');
  });
});
