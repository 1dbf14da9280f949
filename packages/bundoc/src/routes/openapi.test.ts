import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logger';
import { OpenapiReader } from '@bundoc/shared/testing/openapi';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type RunningBundoc, startBundoc } from '../app.ts';
import { readConfig } from '../config.ts';

const folder = mkdtempSync(join(tmpdir(), 'bundoc-openapi-'));
let bundoc: RunningBundoc;
beforeAll(async () => {
  const tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, 'none');
  // A route without a description keeps it from starting.
  bundoc = await startBundoc(
    readConfig({
      BUNDOC_PORT: '0',
      BUNDOC_DATA_DIR: folder,
      BUNDOC_KMS_URL: 'http://127.0.0.1:1',
      BUNDOC_KMS_TOKEN_FILE: tokenFile,
    }),
    { logger: createLogger({ service: 'bundoc', level: 'silent' }) },
  );
});
afterAll(async () => {
  await bundoc?.close();
  rmSync(folder, { recursive: true });
});

it('every route of Bundoc is described, in a valid document', async () => {
  const answer = await fetch(`${bundoc.url}/openapi.json`);
  const reader = new OpenapiReader((await answer.json()) as Record<string, unknown>);
  expect(await reader.faults()).toEqual([]);
  expect(reader.operations.length).toBeGreaterThan(10);
  for (const operation of reader.operations.filter(({ path }) => path.startsWith('/v1/')))
    expect([operation.operationId, operation['x-required-scopes']?.[0]]).toEqual([
      operation.operationId,
      expect.stringMatching(/^docs:/),
    ]);
});

it('the page to browse in needs no token and no BunKMS', async () => {
  for (const path of ['/docs', '/docs/', '/docs/static/swagger-ui-bundle.js'])
    expect((await fetch(`${bundoc.url}${path}`)).status).toBe(200);
});
