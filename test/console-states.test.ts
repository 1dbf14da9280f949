import { randomBytes } from 'node:crypto';
import { scopeSchema } from '@bundoc/shared/contract/tokens';
import { freePort } from '@bundoc/shared/testing/free-port';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOOKS, OWN_FILES, TestBrowser } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

/** Every dialog, answer, refusal and empty view, which a list of addresses does not reach. */
describe('the states of the consoles’ views', needs('chromium'), () => {
  let browser: TestBrowser;
  beforeAll(async () => {
    browser = await TestBrowser.launch();
  });
  afterAll(() => browser?.[Symbol.asyncDispose]());

  describe.each(LOOKS)('%s, %i px', (theme, width) => {
    let installation: Installation;
    let token: string;
    const collection = '/v1/projects/acme/collections/notes';
    const put = async (path: string, body: string) => {
      const answer = await call(installation.url, path, { method: 'PUT', token, body });
      expect(answer.status, answer.text).toBeLessThan(300);
    };

    beforeAll(async () => {
      const keks = [1, 2].map(() => randomBytes(32).toString('hex'));
      installation = await Installation.start({
        // After a restart, the page needs the service at the same address.
        environment: { BUNDOC_PORT: String(await freePort()) },
        kmsEnvironment: { BUNKMS_KEK: keks.join('\n') },
      });
      token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    });
    afterAll(() => installation?.[Symbol.asyncDispose]());

    it('of Bundoc’s console have no axe violation and no overflow', async () => {
      await using visitor = await browser.visit({ theme, width });
      const { page } = visitor;
      const look = (name: string) => visitor.look(`bundoc-${name}`);
      const dialog = page.getByRole('dialog');
      const press = (name: string, exact = true) => page.getByRole('button', { name, exact }).click();
      await page.addInitScript({ content: OWN_FILES });

      await page.goto(`${installation.url}/console/`);
      await visitor.paste('no-token', 'Sign in');
      await page.getByText('This is not a token').waitFor();
      await page.getByText('How do I get a token?').click();
      await look('sign-in-refused');
      const reader = await installation.client(['*'], ['docs:read']);
      await visitor.signIn(installation.url, reader);
      await page.getByText('No projects yet').waitFor();
      await look('projects-none-reader');
      await visitor.signIn(installation.url, token);
      await page.getByText('No projects yet').waitFor();
      await look('projects-none');
      await press('New project');
      await page.getByLabel('Id of the project').fill('acme');
      await look('new-project');
      await page.getByLabel('Name of the collection').fill('notes');
      await press('Continue');
      await visitor.replaceText('Text of the new document', '{"title":"First","amount":1.10}');
      await page.getByLabel('Id', { exact: true }).fill('first');
      await press('Create');
      await page.getByRole('heading', { name: 'first' }).waitFor();
      await visitor.editor('Text of the document').waitFor();

      await visitor.replaceText('Text of the document', '{"title":');
      await page.getByText('Invalid JSON: line 1, column 10: the text ends too early.').waitFor();
      await look('document-not-json');
      await visitor.replaceText('Text of the document', '{"title":"Mine"}');
      await page.getByText('Not saved yet.').waitFor();
      await put(`${collection}/documents/first`, '{"title":"Theirs","amount":2.20}');
      await press('Save');
      await page.getByText('Somebody else has changed this document').waitFor();
      await visitor.editor('The text that is stored now').waitFor();
      await look('conflict');
      await press('Take theirs');
      await press('Delete');
      await dialog.waitFor();
      await look('delete');
      await page.keyboard.press('Escape');
      await visitor.open('/console/projects/acme/collections/notes/documents/none');
      await page.getByText('There is no such document').waitFor();
      await look('document-none');
      await visitor.open('/console/projects/acme/collections/none');
      await page.getByText('No documents').waitFor();
      await look('documents-none');
      await visitor.open('/console/projects/acme');
      await press('New collection');
      await dialog.waitFor();
      await look('new-collection');
      await page.keyboard.press('Escape');
      await visitor.open('/console/projects/none');
      await page.getByText('The project does not exist').waitFor();
      await look('project-none');

      await visitor.open('/console/projects/acme/collections/notes/import');
      const lines = [
        ...Array.from({ length: 12 }, (_, n) => `{"_id":"d${n}","amount":${n}.10,"country":"NL"}`),
        ...['{"v":1', '[1]', '{"_id":7}'],
      ];
      await page.getByLabel('File').setInputFiles({
        name: 'some.ndjson',
        mimeType: 'application/json',
        buffer: Buffer.from(lines.join('\n')),
      });
      await press('Import');
      await page.getByText('Done: 12 documents written, 3 refused').waitFor();
      await look('import-done');

      await visitor.open('/console/projects/acme/collections/notes/definition');
      await visitor.editor('Text of the definition').waitFor();
      await look('definition-none');
      const definition =
        '{"indexes":[{"fields":["country"],"unique":true}],"schema":{"properties":{"amount":{"maximum":9}}}}';
      await visitor.replaceText('Text of the definition', definition);
      await press('Check the documents');
      await page.getByText('that were checked would be refused').waitFor();
      await page.getByRole('link', { name: 'd11' }).waitFor();
      await look('definition-checked');
      await press('Define');
      await page.getByText('duplicates', { exact: true }).waitFor();
      await look('definition-done');
      await press('Remove the definition');
      await look('definition-remove');
      await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
      await page.getByText('The definition was removed.').waitFor();
      await page.getByText('Not defined.').waitFor();

      await put(`/v1/projects/acme/collections/old/documents/d1`, '{"v":1}');
      await visitor.open('/console/projects/acme/collections/old/definition');
      await page.getByLabel('Type the name of the collection to confirm').fill('old');
      await press('Drop the collection');
      await page.getByText('Dropped: 1 document.').waitFor();
      await page.getByText('Empty and not defined.').waitFor();
      await look('definition-dropped');

      await visitor.open('/console/projects/acme/collections/notes/query');
      await visitor.replaceText('Text of the request: Find', '{"where":{"amount":{"$nearby":1}}}');
      await press('Run');
      await page.getByRole('alert').waitFor();
      await look('query-refused');
      await visitor.replaceText('Text of the request: Find', '{"where":{"country":"none"}}');
      await press('Run');
      await page.getByText('No document matches').waitFor();
      await look('query-none');
      // A refusal shows no former answer as if it were its own.
      await visitor.replaceText('Text of the request: Find', '{"where":{"amount":{"$nearby":1}}}');
      await press('Run');
      await page.getByRole('alert').waitFor();
      expect(await page.getByText('No document matches').count()).toBe(0);
      await press('Aggregate');
      await visitor.replaceText(
        'Text of the request: Aggregate',
        '{"groupBy":["country"],"figures":{"documents":{"op":"count"},"sum":{"op":"sum","field":"amount"}}}',
      );
      await press('Run');
      await page.getByRole('row', { name: /"NL"/ }).waitFor();
      await look('query-groups');
      await press('Text');
      await page.getByRole('region', { name: 'Text of the answer' }).waitFor();
      await look('query-text');
      await press('Count');
      await press('Run');
      await page.getByText('Sealed bytes read').waitFor();
      await look('query-count');
      await press('Change');
      const change = '{"where":{"country":"NL"},"update":{"$inc":{"amount":0.10}}}';
      await visitor.replaceText('Text of the request: Change', change);
      await press('Preview');
      await page.getByText('would be changed').waitFor();
      await look('query-change');
      await page.getByRole('button', { name: /^Change \d/ }).click();
      await page.getByText(/^Done: \d+ documents? changed/).waitFor();
      await look('query-changed');
      await press('Delete');
      await visitor.replaceText('Text of the request: Delete', '{"where":{"country":"NL"}}');
      await press('Preview');
      await page.getByText('would be deleted').waitFor();
      await look('query-delete');

      await visitor.open('/console/projects/acme/collections/notes');
      await press('Export');
      await press('Choose a file');
      await page.getByText('Done: 13 documents').waitFor();
      await look('export-done');
      await page.keyboard.press('Escape');

      const following = page.waitForRequest((request) => /changes\?since=(?!now)/.test(request.url()));
      await visitor.open('/console/projects/acme/changes');
      await following;
      await put(`${collection}/documents/d1`, '{"amount":3}');
      await call(installation.url, `${collection}/documents/d2`, { method: 'DELETE', token });
      await page.getByText('deleted', { exact: true }).waitFor();
      await look('changes-some');
      await press('Pause');
      await page.getByText('paused').waitFor();
      await look('changes-paused');

      await visitor.open('/console/projects/acme/operations');
      await press('Back up to a file');
      await page.getByText(/Done: /).waitFor();
      await page.getByText('Check and restore a backup').click();
      await page.getByLabel('Type the name of the project').fill('acme');
      await press('Move');
      await page.getByText('move_refused').waitFor();
      await look('operations-done');

      await page.locator('.request-log > summary').click();
      await page.locator('.request-log li summary').first().click();
      await look('requests');
      await page.locator('.request-log > summary').click();

      await visitor.open('/console/projects/acme/shred');
      await page.getByLabel('Type the name of the project').fill('acme');
      await look('shred-typed');
      await press('Shred for ever');
      await page.getByRole('heading', { name: 'Shredded' }).waitFor();
      await look('shredded');
      const gone = (await call(installation.url, '/v1/projects/acme', { token })).text;
      await visitor.open('/console/receipt');
      await page.getByLabel('Receipt', { exact: true }).fill(gone);
      await page.getByText('This is not the receipt').waitFor();
      await look('receipt-wrong');
      await put('/v1/projects/globex/collections/orders/documents/1', '{"v":1}');
      const shredded = await call(installation.url, '/v1/projects/globex?confirm=globex', {
        method: 'DELETE',
        token,
      });
      await page.getByLabel('Receipt', { exact: true }).fill(shredded.text);
      await page.getByText('not listed').waitFor();
      await look('receipt-read');
      await visitor.open('/console/projects/acme');
      await page.getByText('project_destroyed').waitFor();
      await look('project-shredded');

      await put('/v1/projects/initech/collections/orders/documents/1', '{"v":1}');
      await installation.stopBundoc();
      await visitor.open('/console/state');
      await page.getByText('Bundoc does not answer').waitFor();
      await look('no-answer');
      await installation.startBundoc();
      await page.getByText('Bundoc does not answer').waitFor({ state: 'detached' });
      await visitor.open('/console/projects/initech');
      await page.getByText('one CRITICAL record').waitFor();
      await look('closed');
      await page.clock.install({ time: Date.now() + 86_400_000 * 2 });
      await page.clock.runFor(2_000);
      await page.getByText('A new token is needed').waitFor();
      await look('new-token');
      await press('Sign out and leave');
      await page.getByLabel('Token', { exact: true }).waitFor();
    });

    it('of BunKMS’s console have no axe violation and no overflow', async () => {
      await using visitor = await browser.visit({ theme, width });
      const { page } = visitor;
      const { apiUrl } = installation.kms;
      const look = (name: string) => visitor.look(`bunkms-${name}`);
      const dialog = page.getByRole('dialog');
      const press = (name: string) => page.getByRole('button', { name, exact: true }).click();
      const confirm = async (name: string) => {
        await dialog.getByRole('button', { name, exact: true }).click();
        await dialog.waitFor({ state: 'detached' });
      };
      await put('/v1/projects/umbrella/collections/notes/documents/1', '{"v":1}');
      const operator = await installation.issue({
        sub: 'operator',
        typ: 'service',
        keys: ['*'],
        ttl_s: 3_600,
        scope: [
          ...(['kms:read_key', 'kms:rotate_key', 'kms:manage_key', 'kms:destroy_key'] as const),
          ...(['kms:audit', 'kms:admin', 'kms:manage_kek'] as const),
        ],
        // Everything: a narrow one would list and revoke only what it has issued.
        may_issue: { scopes: [...scopeSchema.options], projects: ['*'], keys: ['*'], ttl_s: 86_400 },
      });
      await visitor.signIn(apiUrl, operator);
      await page.getByLabel('Names from').fill('zzz');
      await page.getByText('No keys').waitFor();
      await look('keys-none');

      await visitor.open('/console/keys/none-dek');
      await page.getByRole('alert').waitFor();
      await look('key-none');
      await visitor.open('/console/keys/umbrella-dek');
      for (const [button, name] of [
        ['Rotate', 'rotate'],
        ['Disable', 'disable'],
        ['Take over', 'take-over'],
        ['Delete in 30 days', 'schedule'],
        ['Destroy now', 'destroy'],
      ] as const) {
        await press(button);
        await dialog.waitFor();
        await look(`key-${name}`);
        await page.keyboard.press('Escape');
        await dialog.waitFor({ state: 'detached' });
      }
      await press('Delete in 30 days');
      await confirm('Delete in 30 days');
      await page.getByText('unless it is restored before').waitFor();
      await look('key-pending');
      await press('Destroy now');
      await dialog.getByLabel('Type the name of the key').fill('umbrella-dek');
      await confirm('Destroy for ever');
      await page.getByText('The key is destroyed.').waitFor();
      await look('key-destroyed');
      await visitor.open('/console/');
      await visitor.open('/console/keys/umbrella-dek');
      await page.getByText('This key is destroyed').waitFor();
      await look('key-gone');

      await visitor.open('/console/storages');
      await page
        .getByRole('button', { name: /^Let a copy take over/ })
        .first()
        .click();
      await dialog.waitFor();
      await look('storages-take-over');
      await page.keyboard.press('Escape');

      await visitor.open('/console/audit');
      await press('Verify');
      await page.getByText('Intact').waitFor();
      await page.getByText('A receipt for the present chain').click();
      await page.getByText('facts').first().click();
      await look('audit-intact');
      await page.getByLabel('Receipt').fill(`2:${'0'.repeat(64)}`);
      await press('Verify');
      await page.getByText('Broken').waitFor();
      await page.getByLabel('Key', { exact: true }).fill('none');
      await press('Filter');
      await page.getByText('No matching records').waitFor();
      await look('audit-broken');
      await press('Export');
      await dialog.waitFor();
      await look('audit-export');
      await page.keyboard.press('Escape');

      await visitor.open('/console/tokens/new');
      await page.getByLabel('Subject').fill('billing');
      await page.getByRole('textbox', { name: 'Projects' }).fill('acme, globex');
      await look('issue-typed');
      await press('Issue');
      await page.getByRole('heading', { name: 'Issued' }).waitFor();
      await look('issued');
      const issued = (await page.locator('.receipt').textContent()) ?? '';
      await visitor.open('/console/tokens/inspect');
      await page.getByLabel('Token', { exact: true }).fill(issued);
      await page.getByText('A token for Bundoc').waitFor();
      await look('inspected');
      await page.getByLabel('Token', { exact: true }).fill('no-token');
      await page.getByRole('alert').waitFor();
      await look('inspect-refused');
      await visitor.open('/console/tokens');
      await page.getByRole('button', { name: 'Revoke billing' }).click();
      await dialog.waitFor();
      await look('revoke');
      await confirm('Revoke');
      await page.getByText('revoked', { exact: true }).waitFor();
      await look('tokens-revoked');
      await page.getByRole('button', { name: /^operator/ }).click();
      await dialog.getByText('How do I get a token that may do more?').click();
      await look('token');
      await page.keyboard.press('Escape');

      await visitor.open('/console/kek');
      await page.getByText('staged').first().waitFor();
      await look('kek-staged');
      await press('Rotate');
      await dialog.waitFor();
      await look('kek-rotate');
      await confirm('Rotate');
      await page.getByText('Last rotation').waitFor();
      await look('kek-rotated');
      await press('Retire');
      await dialog.getByText(/fetched|under this KEK/).waitFor();
      await look('kek-retire');
      await page.keyboard.press('Escape');
    });
  });
});
