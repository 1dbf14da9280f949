import { randomInt } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import { sampleOf } from '@bundoc/shared/testing/sample';
import spectral, { type RulesetDefinition } from '@stoplight/spectral-core';
import rulesets from '@stoplight/spectral-rulesets';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.start();
});
afterAll(() => installation[Symbol.asyncDispose]());

/** The findings of Spectral's recommended rules for OpenAPI, except for missing contact data. */
async function findingsIn(document: Record<string, unknown>): Promise<string[]> {
  const linter = new spectral.Spectral();
  linter.setRuleset({ extends: [[rulesets.oas as RulesetDefinition, 'recommended']] });
  const findings = await linter.run(document);
  return findings
    .filter(({ code }) => code !== 'info-contact')
    .map(({ code, path, message }) => `${code}: ${path.join('.')}: ${message}`);
}

/** `SPECTRAL_SEED` repeats the document that the title names. A check takes 7 s of processor time. */
const SEED = Number(process.env['SPECTRAL_SEED'] ?? randomInt(1, 2_147_483_646));
const DOCUMENTS = [
  ['Bundoc', () => installation.url],
  ["BunKMS's API listener", () => installation.kms.apiUrl],
  ["BunKMS's internal listener", () => installation.kms.internalUrl],
] as const;
it.each(sampleOf(DOCUMENTS, runs(1, DOCUMENTS.length), SEED))(
  "the OpenAPI document of %s meets Spectral's recommended rules",
  async (_service, url) => {
    expect(await findingsIn((await call(url(), '/openapi.json')).json())).toEqual([]);
  },
);

it('a faulty document has findings', async () => {
  const responses = { 200: { description: 'OK' } };
  const document = {
    openapi: '3.1.0',
    info: { title: 'x', version: '1' },
    paths: { '/a/{b}': { get: { operationId: 'a', responses } } },
  };
  expect(await findingsIn(document)).toContainEqual(expect.stringContaining('path-params: paths./a/{b}'));
});
