import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, type Call, call, Installation } from './support/installation.ts';

const DOCUMENTS = '/v1/projects/a/collections/notes/documents';

describe('BUNDOC_PROJECT_DOCUMENTS_MAX and BUNDOC_PROJECT_BYTES_MAX', () => {
  let installation: Installation;
  let token: string;
  beforeAll(async () => {
    installation = await Installation.start({
      environment: { BUNDOC_PROJECT_DOCUMENTS_MAX: '3', BUNDOC_PROJECT_BYTES_MAX: '4000' },
    });
    token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  });
  afterAll(() => installation[Symbol.asyncDispose]());

  const send = (method: string, path: string, body?: string, options: Call = {}) =>
    call(installation.url, path, { method, token, ...(body === undefined ? {} : { body }), ...options });
  const batch = (...operations: object[]) =>
    send('POST', '/v1/projects/a/batch', JSON.stringify({ operations }));
  const expectExceeded = (answer: Answer) =>
    expect([answer.status, answer.json()['code']]).toEqual([507, 'quota_exceeded']);
  const holds = async () => (await send('GET', '/v1/projects/a')).json();

  it('refuse every kind of write that adds data, apply none of it, and still allow writes that add nothing', async () => {
    for (const id of ['x', 'y', 'z'])
      expect((await send('PUT', `${DOCUMENTS}/${id}`, '{"v":1}')).status).toBe(201);
    const before = await holds();
    const pad = 'p'.repeat(4_000);
    expectExceeded(await send('POST', DOCUMENTS, '{"v":1}'));
    expectExceeded(await send('PUT', `${DOCUMENTS}/w`, '{"v":1}'));
    expectExceeded(await send('PUT', `${DOCUMENTS}/x`, JSON.stringify({ pad })));
    expectExceeded(
      await send('PATCH', `${DOCUMENTS}/x`, JSON.stringify({ pad }), {
        headers: { 'content-type': 'application/merge-patch+json' },
      }),
    );
    expectExceeded(
      await batch(
        { op: 'put', collection: 'notes', id: 'x', document: { v: 2 } },
        { op: 'create', collection: 'other', document: { v: 1 } },
      ),
    );
    expectExceeded(await send('PUT', '/v1/projects/a/collections/notes', '{}'));
    expect(await holds()).toEqual(before);

    expect((await send('PUT', `${DOCUMENTS}/x`, '{}')).status).toBe(200);
    const swapped = await batch(
      { op: 'delete', collection: 'notes', id: 'y' },
      { op: 'create', collection: 'other', document: { v: 1 } },
    );
    expect(swapped.status).toBe(200);
    expect((await send('DELETE', `${DOCUMENTS}/z`)).status).toBe(204);
    expect((await send('PUT', `${DOCUMENTS}/w`, '{"v":1}')).status).toBe(201);
    expect((await send('PUT', '/v1/projects/b/collections/notes/documents/x', '{"v":1}')).status).toBe(201);
  });

  it('are documented by OpenAPI for each endpoint that they concern', async () => {
    const { paths } = (await call(installation.url, '/openapi.json')).json() as {
      paths: Record<string, Record<string, { operationId?: string; responses?: object }>>;
    };
    const concerned = Object.values(paths).flatMap((operations) =>
      Object.values(operations)
        .filter(({ responses }) => JSON.stringify(responses ?? {}).includes('quota_exceeded'))
        .map(({ operationId }) => operationId),
    );
    for (const id of ['createDocument', 'putDocument', 'patchDocument', 'writeBatch'])
      expect(concerned).toContain(id);
    expect(concerned).not.toContain('readDocument');
  });
});
