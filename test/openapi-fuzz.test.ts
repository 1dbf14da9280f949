import { randomInt } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { fuzz } from '@bundoc/shared/testing/openapi-fuzz';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/**
 * The number of requests of each operation. For a long run: `FUZZ_RUNS=2000 FUZZ_MS=600000`. `FUZZ_SEED`
 * repeats the seed that a failure names.
 */
const RUNS = Number(process.env['FUZZ_RUNS'] ?? runs(20, 260));
const MS_MAX = Number(process.env['FUZZ_MS'] ?? runs(60_000, 900_000));
const SEED = Number(process.env['FUZZ_SEED'] ?? randomInt(1, 2_147_483_646));

it(
  'no request makes Bundoc fail or give an undocumented answer',
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
        // The document of the examples exists, whatever the earlier requests did.
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
