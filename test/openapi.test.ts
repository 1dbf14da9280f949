import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { freeBodies, isNamed, unknownMembers } from '@bundoc/shared/testing/unknown-members';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const NOTES = '/v1/projects/project-a/collections/notes/documents';

let installation: Installation;
let token: string;
let reader: OpenapiReader;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.issue({
    sub: 'app',
    typ: 'service',
    scope: ['docs:read', 'docs:write', 'docs:admin', 'docs:metrics'],
    projects: ['*'],
  });
  reader = new OpenapiReader((await call(installation.url, '/openapi.json')).json());
});
afterAll(() => installation[Symbol.asyncDispose]());

/**
 * Prepares the data of the examples: a project whose collection `notes` has a document `first`, and neither
 * `second` nor `third`.
 */
async function prepare(): Promise<void> {
  await call(installation.url, `${NOTES}/first`, { method: 'PUT', token, body: '{"title":"Hello"}' });
  for (const id of ['second', 'third'])
    await call(installation.url, `${NOTES}/${id}`, { method: 'DELETE', token });
}

it('every example of the document gets a documented status with a body of the documented form', async () => {
  let count = 0;
  for (const operation of reader.operations)
    for (const example of reader.examplesOf(operation)) {
      await prepare();
      const name = `${operation.operationId}, ${example.name}`;
      const answer = await call(installation.url, example.path, {
        method: example.method,
        token: operation.security.length === 0 ? undefined : token,
        headers: {
          ...example.headers,
          ...(example.body === undefined ? {} : { 'content-type': example.contentType }),
        },
        ...(example.body === undefined ? {} : { body: JSON.stringify(example.body) }),
      });
      expect([name, answer.status, answer.text]).toEqual([name, example.status, expect.anything()]);
      expect([name, reader.faultOf(operation, answer)]).toEqual([name, undefined]);
      count++;
    }
  expect(count).toBeGreaterThan(20);
});

it('every operation requires a token, except the few that need none', async () => {
  for (const operation of reader.operations) {
    const [example] = reader.examplesOf(operation);
    const { method, path, headers, body } = example!;
    const answer = await call(installation.url, path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    expect([operation.operationId, answer.status === 401]).toEqual([
      operation.operationId,
      operation.security.length > 0,
    ]);
  }
});

it('every refusal of an unknown member of a body or query names it, and what is known', async () => {
  const cases = unknownMembers(reader);
  expect(cases.length).toBeGreaterThan(20);
  expect(freeBodies(reader)).toEqual(['createDocument', 'putDocument', 'patchDocument']);
  for (const one of cases) {
    const { operation, request } = one;
    const { status, text } = await call(installation.url, request.path, {
      method: request.method,
      token,
      headers: { ...request.headers, 'content-type': request.contentType },
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
    });
    expect(isNamed(one, status, text), `${operation.operationId}: ${text}`).toBe(true);
  }
});
