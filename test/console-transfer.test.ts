import { readFileSync } from 'node:fs';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { elementTexts } from '../packages/client/src/json-slices.ts';
import { OWN_FILES, TestBrowser, type Visitor, writtenFile } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

/** Text that parsing and serialising would change. */
const EXACT =
  '{\n\t"b": 12345678901234567890,\r\n  "a" : 1.10,\n\t"10": "ten\\u0041", "text": "é\u202e",\r  "e": 1e2 \n}';
const NO_FILES = 'globalThis.showSaveFilePicker = undefined;';

describe('the console’s exports and imports', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  let token: string;
  const COUNT = 1_250;
  const path = (collection: string) => `/v1/projects/acme/collections/${collection}`;
  const textOf = async (collection: string, id: string) =>
    (await call(installation.url, `${path(collection)}/documents/${id}`, { token })).text;
  const countOf = async (collection: string) =>
    (await call(installation.url, path(collection), { token })).json()['documents'];
  const write = async (operations: readonly object[]) => {
    for (let at = 0; at < operations.length; at += 500) {
      const body = JSON.stringify({ operations: operations.slice(at, at + 500) });
      await call(installation.url, '/v1/projects/acme/batch', { method: 'POST', token, body });
    }
  };
  const importText = async ({ page }: Visitor, name: string, text: string) => {
    await page.getByLabel('File').setInputFiles({
      name,
      mimeType: 'application/json',
      buffer: Buffer.from(text),
    });
    await page.getByRole('button', { name: 'Import', exact: true }).click();
  };

  beforeAll(async () => {
    installation = await Installation.start();
    token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    const put = await call(installation.url, `${path('notes')}/documents/exact`, {
      method: 'PUT',
      token,
      body: EXACT,
    });
    expect(put.status).toBe(201);
    const operations = Array.from({ length: COUNT - 1 }, (_, n) => ({
      op: 'put',
      collection: 'notes',
      id: `d${n}`,
      document: { n, even: n % 2 === 0 },
    }));
    await write(operations);
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  it('exports a whole collection into a file, page by page, and imports it again byte for byte', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await page.addInitScript({ content: OWN_FILES });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes');
    await page.getByRole('button', { name: 'Export' }).click();
    await visitor.expectAccessible();
    await page.getByRole('button', { name: 'Choose a file' }).click();
    await page.getByText('Done: 1,250 documents').waitFor();
    await visitor.expectAccessible();
    await page.getByRole('button', { name: 'Close' }).click();
    const file = await writtenFile(page, 'acme-notes.json');
    const elements = elementTexts(file);
    expect(elements).toHaveLength(COUNT);
    expect(elements[0]).toBe(await textOf('notes', 'exact'));
    expect(JSON.parse(file)).toHaveLength(COUNT);

    await visitor.open('/console/projects/acme/collections/copies/import');
    await importText(visitor, 'acme-notes.json', file);
    await page.getByText('Done: 1,250 documents written, 0 refused').waitFor();
    await visitor.expectAccessible();
    const copy = await textOf('copies', 'exact');
    expect(copy.slice(copy.indexOf('\n\t"b"'))).toBe(EXACT.slice(1));
    expect(await countOf('copies')).toBe(COUNT);
  });

  it('exports all pages of a query as NDJSON', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await page.addInitScript({ content: OWN_FILES });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/query');
    const query = '{"where":{"$or":[{"even":true},{"b":12345678901234567890}]},"limit":100}';
    await visitor.replaceText('Text of the request: Find', query);
    await page.getByRole('button', { name: 'Export' }).click();
    await page.getByRole('button', { name: 'NDJSON' }).click();
    await page.getByRole('button', { name: 'Choose a file' }).click();
    await page.getByText('Done: 626 documents').waitFor();
    const lines = (await writtenFile(page, 'acme-notes-query.ndjson')).split('\n');
    expect(lines.pop()).toBe('');
    expect(lines).toHaveLength(626);
    expect(lines[0]).toBe((await textOf('notes', 'exact')).replaceAll(/[\r\n]/g, ' '));
  });

  it('continues an interrupted export, and leaves no file of an abandoned one', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await page.addInitScript({ content: OWN_FILES });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes');
    await page.getByRole('link', { name: 'd0', exact: true }).waitFor();
    let isCut = true;
    await page.route('**/documents?*cursor=*', (route) => (isCut ? route.abort() : route.continue()));
    const begin = async () => {
      await page.getByRole('button', { name: 'Export' }).click();
      await page.getByRole('button', { name: 'Choose a file' }).click();
      await page.getByRole('alert').getByText('network_error').waitFor();
    };
    await begin();
    await page.getByRole('button', { name: 'Cancel' }).click();
    const fileOrNone = () => writtenFile(page, 'acme-notes.json').catch(() => 'none');
    await expect.poll(fileOrNone).toBe('none');
    await begin();
    isCut = false;
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByText('Done: 1,250 documents').waitFor();
    expect(JSON.parse(await writtenFile(page, 'acme-notes.json'))).toHaveLength(COUNT);
  });

  it('exports through memory when the browser cannot write files, and says so', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await page.addInitScript({ content: NO_FILES });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes');
    await page.getByRole('button', { name: 'Export' }).click();
    await page.getByText('holds the file in memory').waitFor();
    const downloading = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Choose a file' }).click();
    const file = readFileSync(await (await downloading).path(), 'utf8');
    expect(JSON.parse(file)).toHaveLength(COUNT);
  });

  it('lists refused lines with their reasons, and writes all others byte for byte', async () => {
    const schema = JSON.stringify({ schema: { properties: { v: { type: 'number' } } } });
    await call(installation.url, path('strict'), { method: 'PUT', token, body: schema });
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/strict/import');
    const good = '{"_id":"good", "v":1.10,  "w":12345678901234567890}';
    const lines = [
      ...[good, '{"_id":"bad","v":"text"}', '{"v":1', '', '[1]', '{"_id":7}'],
      ...['{"v":1}},{"op":"delete","collection":"strict","id":"good"', '{"_id":"last","v":2}\r'],
    ];
    await importText(visitor, 'some.ndjson', lines.join('\n'));
    await page.getByText('Done: 2 documents written, 5 refused').waitFor();
    await visitor.expectAccessible();
    for (const [record, reason] of [
      [2, 'schema_violation: /v must be number'],
      [3, 'not JSON'],
      [5, 'not a JSON object'],
      [6, '_id is not a string'],
      [7, 'not JSON'],
    ])
      await page.getByRole('row', { name: new RegExp(`^${record} .*${reason}`) }).waitFor();
    expect(await textOf('strict', 'good')).toContain(good.slice('{"_id":"good",'.length));
    expect(await countOf('strict')).toBe(2);
  });

  it('continues an interrupted import, and writes nothing twice', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/resumed/import');
    // New documents: one that is sent twice would be stored twice.
    const text = Array.from({ length: 700 }, (_, n) => `{"n":${n}}`).join('\n');
    let batches = 0;
    await page.route('**/batch', async (route) => {
      batches++;
      if (batches < 3 || batches > 6) return route.continue();
      // The service applies the request, and the answer is lost.
      await route.fetch();
      return route.abort();
    });
    await importText(visitor, 'many.ndjson', text);
    await page.getByRole('alert').getByText('network_error').waitFor();
    await page.getByText('400 documents written').waitFor();
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByText('Done: 700 documents written, 0 refused').waitFor();
    expect(await countOf('resumed')).toBe(700);
    // The same file again: after a reload, the page no longer knows its progress.
    await importText(visitor, 'many.ndjson', text);
    await page.getByText('Done: 700 documents written, 0 refused').waitFor();
    expect(await countOf('resumed')).toBe(700);
  });

  it('changes and deletes what a condition holds for once its number was seen, and continues behind a lost answer', async () => {
    const operations = Array.from({ length: 1_000 }, (_, n) => ({
      op: 'put',
      collection: 'written',
      id: `w${n}`,
      document: { n, exact: 0 },
    }));
    await write(operations);
    for (const id of ['last', 'text'])
      await call(installation.url, `${path('written')}/documents/${id}`, {
        method: 'PUT',
        token,
        body: id === 'text' ? '{"n":-1,"exact":"none"}' : '{"n":1000, "exact": 0}',
      });
    await using visitor = await browser.visit();
    const { page } = visitor;
    const press = (name: string) => page.getByRole('button', { name, exact: true }).click();
    const status = page.getByRole('region', { name: 'Documents that the condition holds for' });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/written/query');
    await press('Change');
    await visitor.replaceText('Text of the request: Change', '{"where":{}, "limit": 1}');
    await page.getByText('"update" is missing').waitFor();
    const change = '{"where":{"n":{"$gte":0}},"update":{"$inc":{"exact":12345678901234567890.10}}}';
    await visitor.replaceText('Text of the request: Change', change);
    await press('Preview');
    await status.getByText('1,001 documents would be changed').waitFor();
    await status.getByRole('link', { name: 'w0', exact: true }).waitFor();
    await visitor.expectAccessible();
    // A preview of another text does not tell what the button would do.
    await visitor.replaceText('Text of the request: Change', '{"where":{},"update":{"$inc":{"exact":1}}}');
    await status.waitFor({ state: 'detached' });
    await press('Preview');
    // It says what would not fit as well.
    await page.getByRole('alert').getByText('the present value is a string, not a number').waitFor();
    await visitor.replaceText('Text of the request: Change', change);
    await press('Preview');
    await status.getByText('1,001 documents would be changed').waitFor();
    let pages = 0;
    await page.route('**/update', async (route) => {
      pages++;
      if (pages < 2 || pages > 6) return route.continue();
      // The service applies the second step, and the answer is lost.
      await route.fetch();
      return route.abort();
    });
    await press('Change 1,001 documents');
    await page.getByRole('alert').getByText('network_error').waitFor();
    await status.getByText('500 of 1,001 documents changed so far').waitFor();
    await press('Continue');
    await status.getByText('Done: 1,001 documents changed, 1,001 matched').waitFor();
    expect(await textOf('written', 'last')).toContain('"n":1000, "exact": 12345678901234567890.10}');

    await press('Delete');
    await visitor.replaceText('Text of the request: Delete', '{"where":{"exact":12345678901234567890.10}}');
    await press('Preview');
    await status.getByText('1,001 documents would be deleted').waitFor();
    expect(await page.getByRole('button', { name: 'Delete 1,001 documents' }).isEnabled()).toBe(false);
    await page.getByLabel('Type the name of the collection to confirm').fill('written');
    await visitor.expectAccessible();
    await press('Delete 1,001 documents');
    await status.getByText('Done: 1,001 documents deleted').waitFor();
    expect(await countOf('written')).toBe(1);
    await press('Preview');
    await status.getByText('No document would be deleted').waitFor();
    // What was typed is still there after another view.
    await press('Find');
    await press('Change');
    await expect.poll(() => visitor.editor('Text of the request: Change').textContent()).toBe(change);
  });

  it('offers no change and no deletion to a token that may only read', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, await installation.client(['*'], ['docs:read']));
    await visitor.open('/console/projects/acme/collections/notes/query');
    await page.getByRole('button', { name: 'Aggregate', exact: true }).waitFor();
    for (const name of ['Change', 'Delete'])
      expect(await page.getByRole('button', { name, exact: true }).count()).toBe(0);
  });

  it('refuses a file that is not UTF-8, and one that ends within its array', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/broken/import');
    await importText(visitor, 'cut.json', '[{"_id":"a"},{"_id":"b"');
    await page.getByText('The file ends within its array').waitFor();
    await page.getByLabel('File').setInputFiles({
      name: 'latin.ndjson',
      mimeType: 'application/json',
      buffer: Buffer.from('{"a":"\xe9"}', 'latin1'),
    });
    await page.getByRole('button', { name: 'Import', exact: true }).click();
    await page.getByRole('alert').waitFor();
    expect((await call(installation.url, `${path('broken')}/documents/b`, { token })).status).toBe(404);
  });

  it('backs a project up into a complete file', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await page.addInitScript({ content: OWN_FILES });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/operations');
    await page.getByRole('button', { name: 'Back up to a file' }).click();
    await page.getByText(/Done: [\d.]+ [KM]iB/).waitFor();
    await visitor.expectAccessible();
    const file = await writtenFile(page, 'acme.bundoc-backup');
    expect(file.slice(0, 6)).toBe(
      (await call(installation.url, '/v1/projects/acme/backup', { token })).text.slice(0, 6),
    );
    expect(file.length).toBeGreaterThan(COUNT * 50);
  });

  it('shows the progress of resealing under a new version of the key', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/operations');
    const panel = page.getByRole('region', { name: 'Re-seal' });
    await panel.getByText('none').waitFor();
    const rotator = await installation.issue({
      sub: 'rotator',
      typ: 'service',
      scope: ['kms:rotate_key'],
      keys: ['*'],
    });
    const rotated = await call(installation.kms.apiUrl, '/v1/keys/acme-dek/rotate', {
      method: 'POST',
      token: rotator,
    });
    expect(rotated.status, rotated.text).toBe(200);
    const own = `${path('rotated')}/documents/1`;
    await expect
      .poll(async () => {
        await call(installation.url, own, { method: 'PUT', token, body: '{"v":1}' });
        return (await call(installation.url, '/v1/projects/acme', { token })).json()['key'];
      })
      .toEqual({ version: 2, versions: [1, 2], documents_to_reseal: 0 });
    await panel.getByRole('button', { name: 'Reload' }).click();
    await panel.getByText('1, 2').waitFor();
    await panel.getByText('none').waitFor();
  });

  it('says why a project cannot be moved', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/operations');
    await page.getByLabel('Type the name of the project').fill('acme');
    await page.getByRole('button', { name: 'Move' }).click();
    await page.getByRole('alert').getByText('move_refused').waitFor();
    await visitor.expectAccessible();
  });

  it('shows how many documents a schema would refuse, and which, before it is defined', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/definition');
    await visitor.editor('Text of the definition').waitFor();
    await visitor.replaceText('Text of the definition', '{"schema":{"properties":{"n":{"maximum":1239}}}}');
    await page.getByRole('button', { name: 'Check the documents' }).click();
    await page.getByText('9 documents of 1,250 that were checked would be refused').waitFor();
    await page.getByRole('link', { name: 'd1240' }).waitFor();
    await visitor.expectAccessible();
    expect((await call(installation.url, path('notes'), { token })).json()).not.toHaveProperty('schema');
  });
});
