import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isForServices, rightOf, SCOPES, type Scope } from '@bundoc/shared/contract/scopes';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

interface Operation {
  readonly operationId: string;
  readonly description: string;
  readonly 'x-required-scopes'?: readonly Scope[];
  readonly 'x-required-any-scope'?: readonly Scope[];
}

let installation: Installation;
/** Those of both services, of BunKMS on both listeners. */
let operations: readonly Operation[];
beforeAll(async () => {
  installation = await Installation.start();
  const { url, kms } = installation;
  const documents = await Promise.all(
    [url, kms.apiUrl, kms.internalUrl].map(async (base) => (await call(base, '/openapi.json')).json()),
  );
  operations = documents
    .flatMap(({ paths }) => Object.values(paths as Record<string, Record<string, Operation>>))
    .flatMap((methods) => Object.values(methods))
    .filter((operation) => typeof operation.operationId === 'string');
});
afterAll(() => installation[Symbol.asyncDispose]());

const takingIt = (scope: Scope) =>
  operations.filter((operation) =>
    [...(operation['x-required-scopes'] ?? []), ...(operation['x-required-any-scope'] ?? [])].includes(scope),
  );

describe('scopes', () => {
  it.each(SCOPES)(
    '%s is taken by an endpoint, and is for service tokens alone exactly if each needs one',
    (scope) => {
      const taking = takingIt(scope);
      expect(taking.length).toBeGreaterThan(0);
      const areForServices = taking.every(({ description }) => description.includes('`typ: service`'));
      expect(isForServices(scope)).toBe(areForServices);
    },
  );

  it('are all in the table of docs/scopes.md, with what they allow and for which type of token', () => {
    const page = readFileSync(join(import.meta.dirname, '../docs/scopes.md'), 'utf8');
    const rows = [...page.matchAll(/^\| `([^`]+)` \| (.+) \| (.+) \|$/gm)].map(([, ...cells]) => cells);
    const expected = SCOPES.map((scope) => [
      scope,
      rightOf(scope),
      isForServices(scope) ? 'service' : 'client, service',
    ]);
    expect(rows.sort()).toEqual(expected.sort());
  });

  it('are named by the refusal of a token that lacks one, with the page that lists them', async () => {
    const token = await installation.client(['p'], ['docs:read']);
    const path = '/v1/projects/p/collections/notes/documents/a';
    const refused = await call(installation.url, path, { method: 'PUT', token, body: '{}' });
    expect([refused.status, refused.json()['detail']]).toEqual([
      403,
      'the scope docs:write is needed (docs/scopes.md)',
    ]);
  });
});
