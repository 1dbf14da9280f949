import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestBrowser, type Theme, type Visitor } from './support/browser.ts';
import { describeWithChromium } from './support/chromium-tests.ts';
import { call, Installation } from './support/installation.ts';

/** What a console that parses and writes again would change: numbers, order, a CR, tabs, white space. */
const EXACT =
  '{\n\t"b": 12345678901234567890,\r\n  "a" : 1.10,\n\t"10": "ten", "word": "before",\r  "e": 1e2 \n}';
/** Markup, marks that turn the direction, and a quote: in an id, and so in links and headings. */
const HOSTILE = '<img src=x onerror=alert(1)>\u202e"&lt;script&gt;';

/** Where screenshots go when somebody wants to look at the views. */
const pictures = process.env['CONSOLE_SCREENSHOTS'];

describeWithChromium('the console of Bundoc', () => {
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
  const text = async (id: string) => (await call(installation.url, pathOf(id), { token })).text;
  const criticalRecords = async () => {
    const path = '/v1/audit?severity=CRITICAL&limit=500';
    const answer = await call(installation.kms.apiUrl, path, { token: auditor });
    return (answer.json()['records'] as unknown[]).length;
  };
  const open = async (visitor: Visitor, path: string) => {
    await visitor.page.evaluate(
      `history.pushState(null, '', ${JSON.stringify(path)}); dispatchEvent(new PopStateEvent('popstate'))`,
    );
  };

  beforeAll(async () => {
    installation = await Installation.start();
    token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
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

  it('lets one sign in, find a project and read its documents', async () => {
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

  it('stores what is typed to the byte: one word is changed, and every other byte stays', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await open(visitor, `/console/projects/acme/collections/notes/documents/exact`);
    const editor = visitor.editor('Text of the document');
    // The word as the editor has coloured it: a double click beside it would take another one.
    await editor.locator('span', { hasText: /^"before"$/ }).dblclick();
    await page.keyboard.type('after');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Saved.').waitFor();
    const stored = await text('exact');
    expect(stored.slice(stored.indexOf('\n\t"b"'))).toBe(EXACT.slice(1).replace('before', 'after'));
  });

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
    ['changes', '/console/projects/acme/changes', 'Nothing has happened yet'],
    ['shred', '/console/projects/acme/shred', 'Type the name'],
    ['state', '/console/state', 'Events of BunKMS'],
    ['missing', '/console/nowhere', 'There is no such view'],
  ];

  it.each<[Theme, number]>([
    ['light', 1_440],
    ['dark', 1_440],
    ['light', 360],
    ['dark', 360],
  ])('has no view that axe finds fault with or that overflows: %s, %i px', async (theme, width) => {
    await using visitor = await browser.visit({ theme, width });
    const { page } = visitor;
    const look = async (name: string) => {
      await visitor.expectAccessible();
      await visitor.expectNoOverflow();
      if (pictures === undefined) return;
      mkdirSync(pictures, { recursive: true });
      await page.screenshot({ path: join(pictures, `bundoc-${name}-${theme}-${width}.png`) });
    };
    await page.goto(`${installation.url}/`);
    await page.getByText('Events of BunKMS').waitFor();
    await look('landing');
    await page.getByRole('link', { name: 'Open the console' }).click();
    await page.getByLabel('Token', { exact: true }).waitFor();
    await look('sign-in');
    await visitor.paste(token, 'Sign in');
    for (const [name, path, ready] of VIEWS) {
      await open(visitor, path);
      await page.getByText(ready).first().waitFor();
      await look(name);
    }
    await open(visitor, '/console/projects/acme/collections/notes/query');
    await page.getByRole('button', { name: 'Run' }).click();
    await page.getByText('Looked at').first().waitFor();
    await look('query-answer');
    await page.getByRole('button', { name: /app/ }).click();
    await page.getByText('What this token may do').waitFor();
    await look('token');
  });

  // The last one: it closes the projects of the others.
  it('adds one CRITICAL record for a closed project, announced before it is opened, and none for a look around', async () => {
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
