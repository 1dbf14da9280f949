import { randomInt } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { runs } from '@bundoc/shared/testing/long';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { fuzz } from '@bundoc/shared/testing/openapi-fuzz';
import { expect, it } from 'vitest';
import { startKms, type TestKms } from './support/kms.ts';
import { BOTH } from './support/routes.ts';

/**
 * Requests of each operation. For long runs: `FUZZ_RUNS=2000 FUZZ_MS=600000`, and `FUZZ_SEED` with the seed
 * of a failure.
 */
const RUNS = Number(process.env['FUZZ_RUNS'] ?? runs(10, 170));
const MS_MAX = Number(process.env['FUZZ_MS'] ?? runs(60_000, 900_000));
const SEED = Number(process.env['FUZZ_SEED'] ?? randomInt(1, 2_147_483_646));

/** The examples need a key. Each operation has a separate one, which it may destroy. */
function keysOf(kms: TestKms, token: string) {
  const names = new Map<string, string>();
  return async (operationId: string): Promise<string> => {
    const known = names.get(operationId);
    if (known !== undefined) return known;
    const name = `fuzz-${names.size}-dek`;
    names.set(operationId, name);
    const made = await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } });
    expect(made.status).toBe(201);
    return name;
  };
}

it.each(BOTH)(
  'no request to the %s listener causes a failure, an undocumented answer, or a release without a record',
  async (listener) => {
    await using kms = await startKms();
    const token = await kms.fullToken();
    const keyOf = keysOf(kms, token);
    const reader = new OpenapiReader((await kms[listener]('/openapi.json')).json());
    const exported: string[] = [];
    const statuses = await fuzz({
      reader,
      origin: listener === 'api' ? kms.running.apiUrl : kms.running.internalUrl,
      tokens: {
        good: token,
        none: undefined,
        foreign: (await kms.issue({ typ: 'service', scope: ['docs:admin'], projects: ['*'] })).token,
        garbage: 'a.b.c',
      },
      runs: RUNS,
      seed: SEED,
      msMax: MS_MAX,
      endless: ['streamEvents'],
      prepare: async (request, { operationId }) => {
        const name = await keyOf(operationId);
        const { body } = request;
        return {
          ...request,
          path: request.path.replaceAll('project-a-dek', name),
          body: body && Buffer.from(body.toString('latin1').replaceAll('project-a-dek', name), 'latin1'),
        };
      },
      onAnswer: ({ operationId }, { status, text }) => {
        if (operationId === 'exportKey' && status === 200) exported.push(text);
        else expect(text.includes('"key_material_b64":"')).toBe(false);
      },
    });

    const records = new Map((await kms.records()).map((record) => [record.seq, record]));
    for (const text of exported) expectOnRecord(text, records);
    const releases = [...records.values()].filter(
      ({ action, outcome }) => action === 'key.export' && outcome === 'allowed',
    );
    expect(releases.length).toBe(exported.length);
    expect(await kms.verify()).toMatchObject({ intact: true });
    // The test must cover more than refusals, and must not run into rate limits.
    const total = [...statuses.values()].reduce((sum, count) => sum + count, 0);
    const good = [...statuses].reduce((sum, [status, count]) => sum + (status < 300 ? count : 0), 0);
    expect(good).toBeGreaterThan(total / 20);
    expect(statuses.get(429) ?? 0).toBeLessThan(total / 20);
    if (listener === 'internal') expect(exported.length).toBeGreaterThan(0);
  },
  MS_MAX + 400_000,
);

function expectOnRecord(text: string, records: ReadonlyMap<number, AuditRecord>): void {
  const { audit, name, version } = exportedKeySchema.parse(JSON.parse(text));
  expect(records.get(audit.seq)).toMatchObject({
    severity: 'CRITICAL',
    action: 'key.export',
    outcome: 'allowed',
    key: name,
    version,
    hash: audit.hash,
  });
}
