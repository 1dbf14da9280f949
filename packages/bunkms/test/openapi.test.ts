import { type ExampleRequest, OpenapiReader, type Operation } from '@bundoc/shared/testing/openapi';
import { freeBodies, isNamed, unknownMembers } from '@bundoc/shared/testing/unknown-members';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Call } from './support/http.ts';
import { configOf, startKms, type TestKms } from './support/kms.ts';
import { BOTH } from './support/routes.ts';

let shared: TestKms;
let token: string;
beforeAll(async () => {
  shared = await startKms();
  token = await prepare(shared);
});
afterAll(() => shared[Symbol.asyncDispose]());

/** Creates the state for the examples: a key `project-a-dek` with one version, and no other key. */
async function prepare(kms: TestKms): Promise<string> {
  const full = await kms.fullToken();
  await kms.api('/v1/keys', { token: full, body: { name: 'project-a-dek', type: 'aes-256' } });
  return full;
}

async function readerOf(listener: (typeof BOTH)[number]): Promise<OpenapiReader> {
  await using kms = await startKms();
  return new OpenapiReader((await kms[listener]('/openapi.json')).json());
}

const readers = { api: await readerOf('api'), internal: await readerOf('internal') };
const onApi = new Set(readers.api.operations.map(({ operationId }) => operationId));

describe.each(BOTH)('on the %s listener', (listener) => {
  const reader = readers[listener];
  // Operations on both listeners are the same.
  const operations = reader.operations.filter(
    ({ operationId }) => listener === 'api' || !onApi.has(operationId),
  );
  const examples = operations.flatMap((operation) =>
    reader
      .examplesOf(operation)
      .map((example): [string, Operation, ExampleRequest] => [
        `${operation.operationId}, ${example.name}`,
        operation,
        example,
      ]),
  );

  it.each(examples)('the example %s has the documented result', async (_name, operation, example) => {
    await using own = operation.method === 'GET' ? undefined : await startKms();
    const kms = own ?? shared;
    const as = own === undefined ? token : await prepare(own);
    const answer = await kms[listener](example.path, callOf(operation, example, as));
    expect([answer.status, answer.text]).toEqual([example.status, expect.anything()]);
    if (operation.operationId === 'streamEvents') return;
    expect(reader.faultOf(operation, answer)).toBeUndefined();
  });

  it('every operation requires a token, or is one of the few that need none', async () => {
    for (const operation of reader.operations) {
      const [example] = reader.examplesOf(operation);
      const answer = await shared[listener](example!.path, callOf(operation, example!, undefined));
      expect([operation.operationId, answer.status === 401]).toEqual([
        operation.operationId,
        operation.security.length > 0,
      ]);
    }
  });
});

it('every operation whose share can be in use lists 429', async () => {
  const shares = Object.keys(configOf('', '').limits);
  const limits = Object.fromEntries(shares.map((name) => [name, 0.000_001])) as never;
  await using kms = await startKms({ config: { limits } });
  const as = await kms.fullToken();
  const limited = new Set<string>();
  // Each share has one request, so the second round has only refusals.
  for (const _round of [1, 2])
    for (const operation of readers.internal.operations) {
      const examples = readers.internal.examplesOf(operation);
      const example = examples.find(({ status }) => status < 400) ?? examples[0];
      if (example === undefined || operation.operationId === 'streamEvents') continue;
      const answer = await kms.internal(example.path, callOf(operation, example, as));
      if (answer.status !== 429) continue;
      limited.add(operation.operationId);
      expect([operation.operationId, readers.internal.faultOf(operation, answer)]).toEqual([
        operation.operationId,
        undefined,
      ]);
    }
  expect([...limited]).toEqual(
    expect.arrayContaining(['deleteKey', 'destroyKeyVersion', 'createKey', 'exportKey']),
  );
  expect(limited.size).toBeGreaterThan(12);
});

describe.each(BOTH)('on the %s listener', (listener) => {
  const reader = readers[listener];
  const cases = unknownMembers(reader).map(
    (one) => [`${one.operation.operationId}, ${one.faults[0]?.path}`, one] as const,
  );

  it('every body has listed members', () => {
    expect(freeBodies(reader)).toEqual([]);
    expect(cases.length).toBeGreaterThan(40);
  });

  it.each(cases)('a refusal of an unknown member of %s names it, and what is known', async (_name, one) => {
    const { operation, request } = one;
    const { status, text } = await shared[listener](request.path, callOf(operation, request, token));
    expect(isNamed(one, status, text), text).toBe(true);
  });
});

function callOf(operation: Operation, example: ExampleRequest, as: string | undefined): Call {
  return {
    method: example.method,
    token: operation.security.length === 0 ? undefined : as,
    headers: example.headers,
    ...(example.body === undefined ? {} : { body: example.body as object }),
    statusOnly: operation.operationId === 'streamEvents',
  };
}
