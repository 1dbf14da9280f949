import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { expect } from 'vitest';
import { bunkmsProcess, startServer } from '../../packages/bunkms/test/support/process.ts';
import { bundocCommand } from './bundoc-command.ts';
import { startBundocProcess } from './bundoc-process.ts';
import { call, PATIENT_BUNDOC } from './installation.ts';

/**
 * Starts this build on the data of a release, as in an upgrade, and expects every document unchanged.
 *
 * @param archive the archive from `npm run release`.
 * @throws Error with the output of a service that refuses to start.
 */
export async function expectOpens(archive: string): Promise<void> {
  const place = mkdtempSync(join(tmpdir(), 'bundoc-upgrade-'));
  try {
    execFileSync('tar', ['-xzf', archive, '-C', place]);
    const documents = JSON.parse(readFileSync(join(place, 'documents.json'), 'utf8')) as Record<
      string,
      string | null
    >;
    expect(Object.keys(documents).length).toBeGreaterThan(20);
    const tokenFile = join(place, 'token');
    const kmsEnvironment = { BUNKMS_DATA_DIR: join(place, 'kms'), BUNKMS_KEK_FILE: join(place, 'kek') };
    await init(kmsEnvironment, { serviceToken: tokenFile });
    await using kms = await startServer(kmsEnvironment);
    const environment = {
      ...PATIENT_BUNDOC,
      BUNDOC_DATA_DIR: join(place, 'data'),
      BUNDOC_LOG_BYTES: String(64 * 1_048_576),
      BUNDOC_KMS_URL: kms.internalUrl,
      BUNDOC_KMS_TOKEN_FILE: tokenFile,
    };
    {
      await using bundoc = await startBundocProcess(environment);
      const request = issueTokenSchema.parse({
        sub: 'app',
        typ: 'client',
        scope: ['docs:read', 'docs:write'],
        projects: ['*'],
      });
      const token = await withKms(
        kmsEnvironment,
        async ({ tokens }) => (await tokens.issue(request, { actor: 'cli' })).token,
      );
      for (const [path, text] of Object.entries(documents)) {
        const answer = await call(bundoc.url, `/v1/projects/${path}`, { token });
        if (text === null) expect([path, answer.status]).toEqual([path, 404]);
        else expect([path, answer.status, answer.text]).toEqual([path, 200, text]);
      }
      // Unique indexes are still enforced, and writes succeed.
      const people = '/v1/projects/project-a/collections/people/documents';
      const create = (mail: string) =>
        call(bundoc.url, people, { method: 'POST', token, body: JSON.stringify({ mail }) });
      expect((await create('7@example.org')).status).toBe(409);
      expect((await create('new@example.org')).status).toBe(201);
    }
    expect(await bundocCommand(environment, ['verify'])).toMatchObject({ code: 0 });
    expect(await bunkmsProcess(kmsEnvironment, 'audit', 'verify')).toMatchObject({ code: 0 });
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}
