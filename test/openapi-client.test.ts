import { afterAll, beforeAll, expect, it } from 'vitest';
import { GeneratedClient, typesOf } from '../packages/bundoc/test/support/generated-client.ts';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let types: string;
beforeAll(async () => {
  installation = await Installation.start();
  types = await typesOf((await call(installation.url, '/openapi.json')).json());
});
afterAll(() => installation[Symbol.asyncDispose]());

it('a client that openapi-typescript generates from the document compiles, and behaves as its types say', async () => {
  using client = new GeneratedClient(types);
  expect(client.compile()).toEqual([]);
  const token = await installation.client(['generated'], ['docs:read', 'docs:write']);
  expect(await client.run(installation.url, token)).toEqual({
    results: 2,
    listed: ['one', 'two'],
    found: 'Hello again',
    refusal: 404,
  });
});

it('a program that violates the generated types does not compile', () => {
  using client = new GeneratedClient(types, (program) => program.replaceAll('// @ts-expect-error', '//'));
  expect(client.compile()).toHaveLength(5);
});

it('the generated types have the names of the schemas, in bodies, answers and refusals', () => {
  const declared = [...types.matchAll(/^export type (\w+) = components\['schemas'\]\['\1'\];$/gm)];
  const names = declared.map(([, name]) => name);
  for (const name of [
    'Document',
    'DocumentPage',
    'Condition',
    'BatchOperation',
    'CollectionDefinition',
    'Figure',
  ])
    expect(names).toContain(name);
  expect(names).toContain('DocumentNotFoundProblem');
  expect(types).toContain('"application/json": components["schemas"]["DocumentPage"];');
  expect(types).toContain(
    '"application/problem+json": components["schemas"]["ProjectNotFoundProblem"] | components["schemas"]["NotFoundProblem"];',
  );
});
