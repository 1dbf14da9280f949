import { randomInt } from 'node:crypto';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { fuzz } from '@bundoc/shared/testing/openapi-fuzz';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/**
 * Requests of each operation. By hand: `FUZZ_RUNS=2000 FUZZ_MS=600000`, and `FUZZ_SEED` with the seed that a
 * failure tells.
 */
const RUNS = Number(process.env['FUZZ_RUNS'] ?? 40);
const MS_MAX = Number(process.env['FUZZ_MS'] ?? 60_000);
const SEED = Number(process.env['FUZZ_SEED'] ?? randomInt(1, 2_147_483_646));

it(
  'no request makes Bundoc fail, or answer otherwise than documented',
  async () => {
    await using installation = await Installation.start();
    const good = await installation.issue({
      sub: 'app',
      typ: 'service',
      scope: ['docs:read', 'docs:write', 'docs:admin', 'docs:metrics'],
      projects: ['*'],
    });
    const reader = new OpenapiReader((await call(installation.url, '/openapi.json')).json());
    const statuses = await fuzz({
      reader,
      origin: installation.url,
      tokens: {
        good,
        none: undefined,
        foreign: await installation.issue({ sub: 's', typ: 'service', scope: ['kms:admin'], keys: ['*'] }),
        garbage: 'a.b.c',
      },
      runs: RUNS,
      seed: SEED,
      msMax: MS_MAX,
      endless: ['listChanges'],
      prepare: async (request) => {
        // What the examples speak of is there, whatever was done before.
        await call(installation.url, '/v1/projects/project-a/collections/notes/documents/first', {
          method: 'PUT',
          token: good,
          body: '{"title":"Hello"}',
        });
        return request;
      },
    });
    const total = [...statuses.values()].reduce((sum, count) => sum + count, 0);
    const served = [...statuses].reduce((sum, [status, count]) => sum + (status < 400 ? count : 0), 0);
    expect(served).toBeGreaterThan(total / 20);
    expect(statuses.get(429) ?? 0).toBeLessThan(total / 20);
  },
  MS_MAX + 400_000,
);
