import { readFileSync } from 'node:fs';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOOKS, TestBrowser } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

/** Text that parsing and serialising would change: numbers, order, a CR, tabs, white space. */
const EXACT =
  '{\n\t"b": 12345678901234567890,\r\n  "a" : 1.10,\n\t"10": "ten", "word": "before",\r  "e": 1e2 \n}';
/** An id with markup, a bidirectional control and a quote, which appears in links and headings. */
const HOSTILE = '<img src=x onerror=alert(1)>\u202e"&lt;script&gt;';

describe('the console of Bundoc', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  let token: string;
  let auditor: string;
  const documents = '/v1/projects/acme/collections/notes/documents';
  const pathOf = (id: string) => `${documents}/${encodeURIComponent(id)}`;
  const put = async (id: string, body: string, path = pathOf(id)) => {
    const answer = await call(installation.url, path, { method: 'PUT', token, body });
    expect(answer.status, answer.text).toBeLessThan(300);
  };
  const text = async (id: string, path = pathOf(id)) => (await call(installation.url, path, { token })).text;
  const criticalRecords = async () => {
    const path = '/v1/audit?severity=CRITICAL&limit=500';
    const answer = await call(installation.kms.apiUrl, path, { token: auditor });
    return (answer.json()['records'] as unknown[]).length;
  };

  beforeAll(async () => {
    installation = await Installation.start();
    token = await installation.issue({
      sub: 'app',
      typ: 'service',
      scope: ['docs:read', 'docs:write', 'docs:admin', 'docs:metrics'],
      projects: ['*'],
      ttl_s: 3_600,
    });
    auditor = await installation.issue({ sub: 'auditor', typ: 'client', scope: ['kms:audit'] });
    const countries = ['NL', 'FR', 'DE'];
    for (let at = 0; at < 24; at++)
      await put(
        `note-${String(at).padStart(2, '0')}`,
        `{"title":"Note ${at}","amount":${at}.10,"country":"${countries[at % 3]}","tags":["draft"]}`,
      );
    await put('exact', EXACT);
    await put(HOSTILE, `{"text":${JSON.stringify(`${HOSTILE}</script><script>alert(2)</script>`)}}`);
    await put('one-line', `{"line":"${'x'.repeat(900_000)}"}`);
    for (const project of ['globex', 'initech', 'umbrella'])
      await put('1', '{"v":1}', `/v1/projects/${project}/collections/orders/documents/1`);
    await call(installation.url, '/v1/projects/acme/collections/notes', {
      method: 'PUT',
      token,
      body: '{"indexes":[{"fields":["country","amount"]},{"name":"by-title","fields":["title"],"unique":true}]}',
    });
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  it('lets a user sign in, find a project and read its documents', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByRole('link', { name: 'acme' }).click();
    await page.getByRole('link', { name: 'notes' }).click();
    await page.getByRole('link', { name: 'note-03' }).click();
    await page.getByRole('heading', { name: 'note-03' }).waitFor();
    await visitor.editor('Text of the document').waitFor();
    expect(await visitor.editor('Text of the document').textContent()).toContain('"title":"Note 3"');
  });

  it('creates a project with its first document, which adds exactly the announced CRITICAL record', async () => {
    const before = await criticalRecords();
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(
      installation.url,
      await installation.client(['started'], ['docs:read', 'docs:write']),
    );
    const issued = await criticalRecords();
    expect(issued).toBe(before + 1);
    await page.getByRole('button', { name: 'New project' }).click();
    await page.getByText('one CRITICAL record').waitFor();
    // The only project of the token is filled in.
    expect(await page.getByLabel('Id of the project').inputValue()).toBe('started');
    const next = page.getByRole('button', { name: 'Continue' });
    await page.getByLabel('Name of the collection').fill('no spaces');
    expect(await next.isDisabled()).toBe(true);
    await page.getByLabel('Name of the collection').fill('notes');
    await next.click();
    await page.getByLabel('Id', { exact: true }).fill('first');
    const written = '{ "n": 12345678901234567890 }';
    await visitor.replaceText('Text of the new document', written);
    await page.getByRole('button', { name: 'Create' }).click();
    await page.getByRole('heading', { name: 'first' }).waitFor();
    await visitor.editor('Text of the document').waitFor();
    const stored = await text('first', '/v1/projects/started/collections/notes/documents/first');
    expect(stored.endsWith(written.slice(1))).toBe(true);
    expect(await criticalRecords()).toBe(issued + 1);
  });

  it('shows how much a project has grown since the list was opened', async () => {
    await put('1', '{"v":1}', '/v1/projects/growing/collections/orders/documents/1');
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByRole('row', { name: /growing/ }).waitFor();
    expect(await page.getByRole('row', { name: /growing.*\+/ }).count()).toBe(0);
    for (const id of ['2', '3'])
      await put(id, '{"v":1}', `/v1/projects/growing/collections/orders/documents/${id}`);
    await page.getByRole('row', { name: /growing.*\+2 3/ }).waitFor();
  });

  it('offers the operators of queries while one is typed', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/query');
    const editor = visitor.editor('Text of the request: Find');
    await visitor.replaceText('Text of the request: Find', '{"where":{"amount":{');
    await page.keyboard.type('"$gt');
    await expect.poll(() => editor.textContent()).toBe('{"where":{"amount":{"$gt');
    // A list that is out of date ignores clicks.
    const list = page.locator('.cm-tooltip-autocomplete:not(.cm-tooltip-autocomplete-disabled)');
    await list.getByRole('option', { name: /\$gte/ }).click();
    await expect.poll(() => editor.textContent()).toBe('{"where":{"amount":{"$gte"');
  });

  it('changes only the edited word of a document, and keeps every other byte', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open(`/console/projects/acme/collections/notes/documents/exact`);
    const editor = visitor.editor('Text of the document');
    // The highlighted span of the word, so that the double click selects exactly this word.
    await editor.locator('span', { hasText: /^"before"$/ }).dblclick();
    await page.keyboard.type('after');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Saved.').waitFor();
    const stored = await text('exact');
    expect(stored.slice(stored.indexOf('\n\t"b"'))).toBe(EXACT.slice(1).replace('before', 'after'));
  });

  it('updates a document by operators as it is stored then, keeps every other byte, and says what did not fit', async () => {
    await put('counted', '{"exact": 1.10,  "name":"a"}');
    await using visitor = await browser.visit();
    const { page } = visitor;
    const dialog = page.getByRole('dialog');
    const update = dialog.getByRole('button', { name: 'Update' });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/documents/counted');
    await visitor.editor('Text of the document').waitFor();
    await put('counted', '{"exact": 2.10,  "name":"a"}');
    await page.getByRole('button', { name: 'Update' }).click();
    await visitor.replaceText('Text of the update', '{"$inc":{"name":1}}');
    await update.click();
    await dialog.getByText('the present value is a string, not a number').waitFor();
    await visitor.expectAccessible();
    await visitor.replaceText('Text of the update', '{"$inc":{"exact":0.20}}');
    await update.click();
    await dialog.waitFor({ state: 'detached' });
    await expect
      .poll(() => visitor.editor('Text of the document').textContent())
      .toBe('{"exact": 2.30,  "name":"a"}');
    expect(await text('counted')).toContain('"exact": 2.30,  "name":"a"}');
  });

  /** Views that the documentation shows. */
  const DOCS_PICTURES: Readonly<Record<string, string>> = {
    projects: 'console-projects',
    documents: 'console-documents',
    'query-answer': 'console-query',
  };
  const VIEWS: readonly (readonly [name: string, path: string, ready: string])[] = [
    ['projects', '/console/', 'umbrella'],
    ['project', '/console/projects/acme', 'notes'],
    ['documents', '/console/projects/acme/collections/notes', 'note-05'],
    ['fields', '/console/projects/acme/collections/notes?fields=title,amount,country', '1.10'],
    ['document', '/console/projects/acme/collections/notes/documents/note-05', '"Note 5"'],
    [
      'hostile',
      `/console/projects/acme/collections/notes/documents/${encodeURIComponent(HOSTILE)}`,
      'alert(2)',
    ],
    ['large', '/console/projects/acme/collections/notes/documents/one-line', 'too much to edit'],
    ['new', '/console/projects/acme/collections/notes/new', 'New document'],
    ['query', '/console/projects/acme/collections/notes/query', '"orderBy"'],
    ['definition', '/console/projects/acme/collections/notes/definition', 'by-title'],
    ['changes', '/console/projects/acme/changes', 'No changes yet'],
    ['import', '/console/projects/acme/collections/notes/import', 'keeps its exact bytes'],
    ['operations', '/console/projects/acme/operations', 'Versions of the key'],
    ['shred', '/console/projects/acme/shred', 'Type the name'],
    ['receipt', '/console/receipt', 'The receipt JSON from Bundoc'],
    ['state', '/console/state', 'open projects'],
    ['missing', '/console/nowhere', 'This view does not exist'],
  ];

  it.each(LOOKS)('has no view with an axe violation or an overflow: %s, %i px', async (theme, width) => {
    await using visitor = await browser.visit({ theme, width });
    const { page } = visitor;
    const look = (name: string) => visitor.look(`bundoc-${name}`, DOCS_PICTURES[name]);
    await page.goto(`${installation.url}/`);
    await page.getByText('Events from BunKMS').waitFor();
    await look('landing');
    await page.getByRole('link', { name: 'Open the console' }).click();
    await page.getByLabel('Token', { exact: true }).waitFor();
    await look('sign-in');
    await visitor.paste(token, 'Sign in');
    for (const [name, path, ready] of VIEWS) {
      await visitor.open(path);
      await page.locator('#content').getByText(ready).first().waitFor();
      await look(name);
    }
    await visitor.open('/console/projects/acme/collections/notes/query');
    await page.getByRole('button', { name: 'Run' }).click();
    await page.getByText('Scanned').first().waitFor();
    await look('query-answer');
    await page.getByRole('button', { name: 'Export' }).click();
    await page.getByRole('dialog').waitFor();
    await look('export');
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: /app/ }).click();
    await page.getByText('What this token may do').waitFor();
    await look('token');
  });

  it('shows how far the build of an index is, and that it is ready once it is', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    let indexed: number | undefined = 40;
    await page.route('**/v1/projects/acme/collections/notes', async (route) => {
      const response = await route.fetch();
      const info = await response.json();
      if (indexed !== undefined) Object.assign(info.indexes[0], { state: 'building', indexed, total: 100 });
      await route.fulfill({ response, json: info });
    });
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/definition');
    const progress = page.getByRole('progressbar', { name: /^Build of/ });
    await expect.poll(() => progress.getAttribute('value')).toBe('40');
    expect(await progress.getAttribute('max')).toBe('100');
    indexed = 70;
    await expect.poll(() => progress.getAttribute('value')).toBe('70');
    indexed = undefined;
    await progress.waitFor({ state: 'detached' });
    await page.getByText('building').waitFor({ state: 'detached' });
  });

  it('shows both texts after a conflicting edit, keeps mine, and stores it once I confirm', async () => {
    await put('shared', '{"by":"nobody"}');
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/documents/shared');
    await visitor.replaceText('Text of the document', '{"by":"me"}');
    await put('shared', '{"by":"somebody else"}');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Somebody else has changed this document').waitFor();
    expect(await visitor.editor('Text of the document').textContent()).toContain('{"by":"me"}');
    expect(await visitor.editor('The text that is stored now').textContent()).toContain('somebody else');
    await visitor.expectAccessible();
    expect(await text('shared')).toContain('"by":"somebody else"');
    await page.getByRole('button', { name: 'Replace theirs with mine' }).click();
    await page.getByText('Saved.').waitFor();
    expect(await text('shared')).toContain('"by":"me"');
  });

  it('keeps the edited text when the token is revoked during an edit', async () => {
    await put('kept', '{"v":1}');
    const short = await installation.client();
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, short);
    await visitor.open('/console/projects/acme/collections/notes/documents/kept');
    await visitor.replaceText('Text of the document', '{"v":"typed before the end"}');
    const { jti } = JSON.parse(Buffer.from(short.split('.')[1] ?? '', 'base64url').toString());
    const admin = await installation.issue({ sub: 'admin', typ: 'service', scope: ['kms:admin'] });
    const path = `/v1/tokens/${jti}`;
    await call(installation.kms.apiUrl, path, { method: 'DELETE', token: admin });
    await expect
      .poll(async () => (await call(installation.url, '/v1/projects', { token: short })).status)
      .toBe(401);
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('A new token is needed').waitFor();
    await visitor.expectAccessible();
    await visitor.paste(token, 'Continue');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Saved.').waitFor();
    expect(await text('kept')).toContain('"v":"typed before the end"');
  });

  it('sends a query as it is typed, with exact numbers, and shows how the answer was found', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/query');
    const query = '{"where":{"country":"FR","amount":{"$gte":10.10,"$lt":12345678901234567890}}}';
    await visitor.replaceText('Text of the request: Find', query);
    const asked = page.waitForRequest(
      (request) => request.method() === 'POST' && request.url().endsWith('/query'),
    );
    await page.getByRole('button', { name: 'Run' }).click();
    expect((await asked).postData()).toBe(query.replace('{', '{"explain":true,'));
    await page.getByText('country+amount').waitFor();
    await page.getByRole('link', { name: 'note-10' }).waitFor();
    await page.getByText('100 % of the scanned documents matched.').waitFor();
  });

  it('shows changes live, none while it is paused, and the missed ones once it resumes', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    const following = page.waitForRequest((request) => /changes\?since=(?!now)/.test(request.url()));
    await visitor.open('/console/projects/globex/changes');
    await following;
    const write = (id: string) => put(id, '{"v":1}', `/v1/projects/globex/collections/feed/documents/${id}`);
    await write('first');
    await page.getByRole('link', { name: 'first' }).waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.getByText('paused').waitFor();
    await write('second');
    expect(await page.getByRole('link', { name: 'second' }).count()).toBe(0);
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.getByRole('link', { name: 'second' }).waitFor();
    await visitor.expectAccessible();
  });

  it('shreds a project once its name is typed, and offers the receipt', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/initech/shred');
    const button = page.getByRole('button', { name: 'Shred for ever' });
    await page.getByLabel('Type the name of the project').fill('inItech');
    expect(await button.isDisabled()).toBe(true);
    await page.getByLabel('Type the name of the project').fill('initech');
    await button.click();
    await page.getByRole('heading', { name: 'Shredded' }).waitFor();
    await visitor.expectAccessible();
    const downloading = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download the receipt' }).click();
    const receipt = JSON.parse(readFileSync(await (await downloading).path(), 'utf8'));
    expect(receipt).toMatchObject({ project: 'initech', key: { name: 'initech-dek', state: 'destroyed' } });
    const gone = await call(installation.url, '/v1/projects/initech', { token });
    expect([gone.status, gone.json()['code']]).toEqual([410, 'project_destroyed']);
    // What was downloaded is read again, and said where it is verified.
    await visitor.open('/console/receipt');
    await page.getByLabel('Receipt', { exact: true }).fill('{"project":"initech"}');
    await page.getByText('This is not the receipt JSON from Bundoc').waitFor();
    await page.getByLabel('Receipt', { exact: true }).fill(JSON.stringify(receipt));
    await page.getByText(`${receipt.key.audit.seq}:${receipt.key.audit.hash}`).waitFor();
    await page.getByText('not listed').waitFor();
    await visitor.expectAccessible();
    const record = `/v1/audit?cursor=${receipt.key.audit.seq - 1}&limit=1`;
    const [recorded] = (await call(installation.kms.apiUrl, record, { token: auditor })).json()[
      'records'
    ] as object[];
    expect(recorded).toMatchObject({ hash: receipt.key.audit.hash });
  });

  it('says that the service does not answer, and recovers automatically', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByText('umbrella').waitFor();
    await page.context().setOffline(true);
    await page.getByText('Bundoc does not answer').waitFor();
    await page.context().setOffline(false);
    await page.getByText('Bundoc does not answer').waitFor({ state: 'detached' });
  });

  it('shows each request as a command that repeats it, without the token', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByText('umbrella').waitFor();
    await page.locator('.request-log > summary').click();
    await page.locator('.request-log li summary').first().click();
    const command = (await page.locator('.request-log .command').first().textContent()) ?? '';
    expect(command).toBe(
      `curl -sS '${installation.url}/v1/projects?limit=50&include=summary' -H "Authorization: Bearer $TOKEN"`,
    );
    expect(await page.content()).not.toContain(token);
    expect(installation.log.text).not.toContain(token);
  });

  // This test is last because it closes the projects of the others.
  it('announces the CRITICAL record before it opens a closed project, adds exactly one, and adds none while browsing', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByText('umbrella').waitFor();
    await installation.stopBundoc();
    await installation.startBundoc();
    const before = await criticalRecords();
    await visitor.signIn(installation.url, token);
    await page.getByRole('row', { name: /umbrella.*closed.*no key/ }).waitFor();
    await page.getByRole('link', { name: 'umbrella' }).click();
    await page.getByText('one CRITICAL record').waitFor();
    expect(await criticalRecords()).toBe(before);
    await page.getByRole('button', { name: 'Open the project' }).click();
    await page.getByRole('link', { name: 'orders' }).click();
    await page.getByRole('link', { name: '1', exact: true }).click();
    await visitor.editor('Text of the document').waitFor();
    expect(await criticalRecords()).toBe(before + 1);
  });
});
