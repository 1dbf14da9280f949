import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import { type Json, OpenapiReader } from '@bundoc/shared/testing/openapi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBundoc, startBundoc } from '../app.ts';
import { readConfig } from '../config.ts';

const folder = mkdtempSync(join(tmpdir(), 'bundoc-openapi-'));
let bundoc: RunningBundoc;
let reader: OpenapiReader;
beforeAll(async () => {
  const tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, 'e30.e30.x');
  // A route without a description prevents the start.
  bundoc = await startBundoc(
    readConfig({
      BUNDOC_PORT: '0',
      BUNDOC_DATA_DIR: folder,
      BUNDOC_KMS_URL: 'http://127.0.0.1:1',
      BUNDOC_KMS_TOKEN_FILE: tokenFile,
    }),
    { logger: createLogger({ service: 'bundoc', level: 'silent' }) },
  );
  const answer = await fetch(`${bundoc.url}/openapi.json`);
  reader = new OpenapiReader((await answer.json()) as Json);
});
afterAll(async () => {
  await bundoc?.close();
  rmSync(folder, { recursive: true });
});

it('every route of Bundoc is described, in a valid document', async () => {
  expect(await reader.faults()).toEqual([]);
  expect(reader.operations.length).toBeGreaterThan(10);
  for (const operation of reader.operations.filter(({ path }) => path.startsWith('/v1/')))
    expect([operation.operationId, operation['x-required-scopes']?.[0]]).toEqual([
      operation.operationId,
      expect.stringMatching(/^docs:/),
    ]);
});

it('the 503 of /ready has the documented body and headers', async () => {
  const answer = await fetch(`${bundoc.url}/ready`);
  const [status, headers, text] = [answer.status, Object.fromEntries(answer.headers), await answer.text()];
  expect([status, headers['retry-after'], JSON.parse(text).status]).toEqual([503, '1', 'not ready']);
  const operation = reader.operations.find(({ operationId }) => operationId === 'ready');
  expect(reader.faultOf(operation!, { status, headers, text })).toBeUndefined();
});

it('the documentation page needs neither a token nor BunKMS', async () => {
  for (const path of ['/docs', '/docs/', '/docs/static/swagger-ui-bundle.js'])
    expect((await fetch(`${bundoc.url}${path}`)).status).toBe(200);
});

interface Reference {
  readonly $ref?: string | undefined;
}
interface RefusalResponse {
  readonly content: {
    readonly 'application/problem+json': {
      readonly schema: Reference & { readonly oneOf?: readonly Reference[] };
    };
  };
}

describe('the schemas of the document', () => {
  const componentOf = (name: string) => reader.resolve(`#/components/schemas/${name}`) as Json;
  const named = (name: string) => ({ $ref: `#/components/schemas/${name}` });

  it('have names, and every JSON body and answer refers to one', () => {
    for (const { operationId, requestBody, responses } of reader.operations) {
      const contents = [requestBody?.content, ...Object.values(responses).map((one) => one['content'])];
      for (const [type, { schema }] of contents.flatMap((content) =>
        Object.entries((content ?? {}) as object),
      ))
        if (/[/+]json$/.test(type) && type !== 'application/problem+json')
          expect([operationId, schema]).toEqual([operationId, { $ref: expect.any(String) }]);
    }
    for (const name of [
      'Query',
      'Condition',
      'Operators',
      'Batch',
      'CollectionDefinition',
      'Aggregate',
      'Collection',
    ])
      expect(componentOf(name)).toMatchObject({ type: 'object' });
    for (const name of ['DocumentPage', 'QueryPage', 'ChangePage', 'ProjectPage', 'CollectionList'])
      expect(componentOf(name)).toMatchObject({ type: 'object' });
  });

  it('refer to each other by name', () => {
    const properties = (name: string) => componentOf(name)['properties'] as Record<string, Json>;
    expect(properties('Query')['where']).toEqual(named('Condition'));
    expect(properties('DocumentPage')['documents']).toMatchObject({ items: named('Document') });
    expect(properties('Batch')['operations']).toMatchObject({ items: named('BatchOperation') });
    expect(properties('CollectionDefinition')['indexes']).toMatchObject({ items: named('IndexDefinition') });
    expect((properties('Condition')['$or'] as Json)['items']).toEqual(named('Condition'));
  });

  it('describe the document and the patches of a batch, and valid ids', () => {
    const { document, id } = componentOf('PutOperation')['properties'] as Record<string, Json>;
    expect(document).toEqual(named('DocumentBody'));
    expect(id).toEqual({ type: 'string', minLength: 1, maxLength: 512 });
    expect(componentOf('PatchOperation')['properties']).toMatchObject({
      merge: named('MergePatch'),
      json: named('JsonPatch'),
      update: named('Update'),
    });
  });

  it('exist for each media type of PATCH', () => {
    const patch = reader.operations.find(({ operationId }) => operationId === 'patchDocument');
    const schemas = Object.entries(patch?.requestBody?.content ?? {}).map(([type, { schema }]) => [
      type,
      schema,
    ]);
    expect(Object.fromEntries(schemas)).toEqual({
      'application/merge-patch+json': named('MergePatch'),
      'application/json-patch+json': named('JsonPatch'),
      'application/vnd.bundoc.update+json': named('Update'),
    });
  });

  it('include one for each problem, by which refusals are distinguished', () => {
    for (const operation of reader.operations)
      for (const [status, response] of Object.entries(operation.responses)) {
        const codes = reader.codesOf(operation, Number(status));
        if (codes.length === 0) continue;
        const { $ref } = response;
        const told = (typeof $ref === 'string' ? reader.resolve($ref) : response) as RefusalResponse;
        const { $ref: one, oneOf = [{ $ref: one }] } = told.content['application/problem+json'].schema;
        const schemas = oneOf.map((each) => componentOf(String(each.$ref).split('/').at(-1) ?? ''));
        const own = schemas.map(({ allOf }) => (allOf as Json[])[1]?.['properties'] as Json);
        expect(own.map(({ code }) => code)).toEqual(codes.map((code) => ({ type: 'string', const: code })));
      }
  });
});

it('examples show integers as integers, and say which requests are refused', () => {
  const list = reader.operations.find(({ operationId }) => operationId === 'listDocuments');
  const limit = list?.parameters.find(({ name }) => name === 'limit');
  expect(limit?.examples).toEqual({ firstPage: { value: 20 } });
  for (const operation of reader.operations) {
    for (const request of Object.values(operation['x-refused-requests'] ?? {}))
      expect([request.status, request.summary]).toEqual([400, expect.stringContaining('Refused with 400')]);
    const shown = [
      ...operation.parameters.map(({ examples }) => examples),
      ...Object.values(operation.requestBody?.content ?? {}).map(({ examples }) => examples),
    ].flatMap((examples) => Object.entries(examples ?? {}) as [string, { summary?: string }][]);
    for (const [name, { summary = '' }] of shown) {
      const status = Number(operation['x-example-status'][name]);
      expect([name, status, summary.startsWith(`Refused with ${status}`)]).toEqual([
        name,
        status,
        status >= 400,
      ]);
    }
  }
});
