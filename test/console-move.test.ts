import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOOKS, TestBrowser } from './support/browser.ts';
import { startConfiguredBundoc } from './support/bundoc-process.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

const COUNT = 400;

describe('from files to PostgreSQL', needs('postgresql'), () => {
  describe('the console', needs('chromium'), () => {
    let server: PostgresServer;
    let installation: Installation;
    let browser: TestBrowser;
    let token: string;
    let there: string;
    const pathOf = (project: string, id: string) =>
      `/v1/projects/${project}/collections/notes/documents/${id}`;

    beforeAll(async () => {
      server = await PostgresServer.start();
      there = (await server.createDatabase('there')).url;
      installation = await Installation.start({
        isOnFiles: true,
        environment: { BUNDOC_MOVE_TO: there },
      });
      token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
      for (const project of ['stays', ...LOOKS.map((_, at) => `moves-${at}`)]) {
        const operations = Array.from({ length: COUNT }, (_, n) => ({
          op: 'put',
          collection: 'notes',
          id: `d${n}`,
          document: { n, pad: 'x'.repeat(300) },
        }));
        const body = JSON.stringify({ operations });
        const filled = await call(installation.url, `/v1/projects/${project}/batch`, {
          method: 'POST',
          token,
          body,
        });
        expect(filled.status, filled.text).toBe(200);
      }
      browser = await TestBrowser.launch();
    });
    afterAll(async () => {
      await browser?.[Symbol.asyncDispose]();
      await installation?.[Symbol.asyncDispose]();
      await server?.[Symbol.asyncDispose]();
    });

    it.each(LOOKS.map((look, at) => [...look, at] as const))(
      'moves a project with its documents, says where it is, and leaves the others: %s, %i px',
      async (theme, width, at) => {
        const project = `moves-${at}`;
        const exact = '{ "n" : 12345678901234567890, "m" : 1.10 }';
        const put = await call(installation.url, pathOf(project, 'exact'), {
          method: 'PUT',
          token,
          body: exact,
        });
        expect(put.status).toBe(201);
        await using visitor = await browser.visit({ theme, width });
        const { page } = visitor;
        await visitor.signIn(installation.url, token);
        await visitor.open(`/console/projects/${project}/operations`);
        const panel = page.getByRole('region', { name: 'Move to PostgreSQL' });
        const button = panel.getByRole('button', { name: 'Move' });
        await panel.getByLabel('Type the name of the project').fill('stays');
        expect(await button.isDisabled()).toBe(true);
        await panel.getByLabel('Type the name of the project').fill(project);
        const asked = page.waitForRequest((request) => request.url().endsWith('/move'));
        await button.click();
        expect(new URL((await asked).url()).pathname).toBe(`/v1/projects/${project}/move`);
        await panel.getByText(`Moved to ${new URL(there).host}/there`).waitFor();
        const kept = readdirSync(join(installation.dataDir, 'moved')).find((name) => name.includes(project));
        await panel.getByText(`moved/${kept}`).waitFor();
        await visitor.look('bundoc-moved');

        const left = await call(installation.url, pathOf(project, 'exact'), { token });
        expect([left.status, left.json()['code']]).toEqual([409, 'project_elsewhere']);
        await visitor.open('/console/');
        await visitor.open(`/console/projects/${project}`);
        await page.getByText('project_elsewhere').waitFor();
        await visitor.look('bundoc-elsewhere');
        expect((await call(installation.url, pathOf('stays', 'd0'), { token })).status).toBe(200);

        await using node = await startConfiguredBundoc({
          ...PATIENT_BUNDOC,
          BUNDOC_STORAGE: there,
          BUNDOC_KMS_URL: installation.kms.internalUrl,
          BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
        });
        const moved = await call(node.url, pathOf(project, 'exact'), { token });
        expect(moved.text.endsWith(exact.slice(1))).toBe(true);
        const { documents } = (await call(node.url, `/v1/projects/${project}`, { token })).json();
        expect(documents).toBe(COUNT + 1);
      },
    );
  });
});
