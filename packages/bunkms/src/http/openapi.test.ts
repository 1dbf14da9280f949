import { createLogger } from '@bundoc/shared/logs/logger';
import { Drain } from '@bundoc/shared/process/drain';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { describe, expect, it } from 'vitest';
import { createMetrics } from '../metrics.ts';
import { createApiListener, createInternalListener } from './listener.ts';

const refuse = () => {
  throw new Error('not called');
};

function listenerOf(kind: 'api' | 'internal', sealed = false) {
  const options = {
    logger: createLogger({ service: 'bunkms', level: 'silent' }),
    clock: new FakeClock(),
    drain: new Drain(0),
    metrics: createMetrics(),
    publicKey: () => undefined,
    console: { version: '0.1.0', site: undefined },
    isSealed: () => sealed,
    services: refuse,
    readiness: async () => ({
      status: 'sealed' as const,
      checks: { unsealed: false, store: false, audit: false },
    }),
  };
  const create = kind === 'api' ? createApiListener : createInternalListener;
  return create(options, undefined, () => undefined);
}

describe.each(['api', 'internal'] as const)('the OpenAPI document of the %s listener', (kind) => {
  it('is valid and describes every route', async () => {
    await using app = await listenerOf(kind);
    const reader = new OpenapiReader((await app.inject('/openapi.json')).json());
    expect(await reader.faults()).toEqual([]);
    expect(reader.operations.length).toBeGreaterThan(25);
  });

  it('shows integers as integers, and marks the examples that are refused', async () => {
    await using app = await listenerOf(kind);
    const reader = new OpenapiReader((await app.inject('/openapi.json')).json());
    let [integers, refusals] = [0, 0];
    for (const { operationId, parameters, requestBody, ...operation } of reader.operations) {
      for (const { name, schema, examples } of parameters)
        for (const { value } of Object.values(examples ?? {}))
          if (schema['type'] === 'integer') {
            integers++;
            expect([operationId, name, value]).toEqual([operationId, name, expect.any(Number)]);
          } else expect([operationId, name, value]).toEqual([operationId, name, expect.any(String)]);
      for (const request of Object.values(operation['x-refused-requests'] ?? {})) {
        refusals++;
        expect([operationId, request.status, request.summary]).toEqual([
          operationId,
          request.status,
          expect.stringContaining(`Refused with ${request.status}`),
        ]);
      }
      const shown = [
        ...parameters.map(({ examples }) => examples),
        ...Object.values(requestBody?.content ?? {}).map(({ examples }) => examples),
      ].flatMap((examples) => Object.entries(examples ?? {}) as [string, { summary?: string }][]);
      for (const [name, { summary = '' }] of shown) {
        const status = Number(operation['x-example-status'][name]);
        if (status >= 400) refusals++;
        expect([operationId, name, summary.startsWith(`Refused with ${status}`)]).toEqual([
          operationId,
          name,
          status >= 400,
        ]);
      }
    }
    expect(integers).toBeGreaterThan(3);
    expect(refusals).toBeGreaterThan(10);
  });

  it('has the body and headers of the 503 of /ready', async () => {
    await using app = await listenerOf(kind, true);
    const reader = new OpenapiReader((await app.inject('/openapi.json')).json());
    const { statusCode: status, headers, body: text } = await app.inject('/ready');
    expect([status, headers['retry-after'], JSON.parse(text).status]).toEqual([503, '1', 'sealed']);
    const operation = reader.operations.find(({ operationId }) => operationId === 'ready');
    expect(reader.faultOf(operation!, { status, headers, text })).toBeUndefined();
  });

  it('is answered without a token while the service is sealed', async () => {
    await using app = await listenerOf(kind, true);
    expect((await app.inject('/openapi.json')).statusCode).toBe(200);
    expect((await app.inject('/docs/')).statusCode).toBe(kind === 'api' ? 200 : 503);
  });
});

describe('the API listener', () => {
  it('does not document anything that exists only on the internal listener', async () => {
    await using internal = await listenerOf('internal');
    await using api = await listenerOf('api');
    const pathsOf = async (app: typeof api) =>
      Object.keys((await app.inject('/openapi.json')).json().paths as object);
    const apiPaths = await pathsOf(api);
    const only = (await pathsOf(internal)).filter((path) => !apiPaths.includes(path));
    expect(only.sort()).toEqual(['/v1/events', '/v1/export/{name}']);
    const text = (await api.inject('/openapi.json')).body;
    expect(text).not.toMatch(/\/v1\/export|\/v1\/events|key_material|ExportedKey|"export"|"events"/);
  });
});
