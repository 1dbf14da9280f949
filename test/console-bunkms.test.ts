import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestBrowser, type Theme, type Visitor } from './support/browser.ts';
import { describeWithChromium } from './support/chromium-tests.ts';
import { call, Installation } from './support/installation.ts';

/** Where screenshots go when somebody wants to look at the views. */
const pictures = process.env['CONSOLE_SCREENSHOTS'];

describeWithChromium('the console of BunKMS', () => {
  let installation: Installation;
  let browser: TestBrowser;
  let token: string;
  let auditor: string;
  const ask = async (path: string, options: { method?: string; body?: string } = {}) =>
    call(installation.kms.apiUrl, path, { token, ...options });
  const criticalRecords = async () =>
    ((await ask('/v1/audit?severity=CRITICAL&limit=500')).json()['records'] as unknown[]).length;
  const receipt = async () => {
    const { seq, hash } = (await ask('/v1/audit/head')).json();
    return `${String(seq)}:${String(hash)}`;
  };
  const open = (visitor: Visitor, path: string) =>
    visitor.page.evaluate(
      `history.pushState(null, '', ${JSON.stringify(path)}); dispatchEvent(new PopStateEvent('popstate'))`,
    );

  beforeAll(async () => {
    installation = await Installation.start();
    const writer = await installation.client();
    for (const project of ['acme', 'globex', 'initech', 'umbrella'])
      await call(installation.url, `/v1/projects/${project}/collections/notes/documents/1`, {
        method: 'PUT',
        token: writer,
        body: '{"v":1}',
      });
    token = await installation.issue({
      sub: 'operator',
      typ: 'service',
      scope: ['kms:read_key', 'kms:rotate_key', 'kms:manage_key', 'kms:audit', 'kms:admin'],
      keys: ['*'],
      ttl_s: 3_600,
      may_issue: { scopes: ['docs:read', 'docs:write'], projects: ['*'], keys: [], ttl_s: 86_400 },
    });
    auditor = await installation.issue({ sub: 'auditor', typ: 'client', scope: ['kms:audit'] });
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  const VIEWS: readonly (readonly [name: string, path: string, ready: string])[] = [
    ['keys', '/console/', 'umbrella-dek'],
    ['key', '/console/keys/acme-dek', 'Leases'],
    ['storages', '/console/storages', 'never'],
    ['audit', '/console/audit', 'CRITICAL'],
    ['tokens', '/console/tokens', 'operator'],
    ['issue', '/console/tokens/new', 'will be able'],
    ['inspect', '/console/tokens/inspect', 'It is read in this page'],
    ['kek', '/console/kek', 'current'],
    ['state', '/console/state', 'Audit chain'],
  ];

  it.each<[Theme, number]>([
    ['light', 1_440],
    ['dark', 1_440],
    ['light', 360],
    ['dark', 360],
  ])('has no view that axe finds fault with or that overflows: %s, %i px', async (theme, width) => {
    await using visitor = await browser.visit({ theme, width });
    const { page } = visitor;
    const before = await criticalRecords();
    const look = async (name: string) => {
      await visitor.expectAccessible();
      await visitor.expectNoOverflow();
      if (pictures === undefined) return;
      mkdirSync(pictures, { recursive: true });
      await page.screenshot({ path: join(pictures, `bunkms-${name}-${theme}-${width}.png`) });
    };
    await page.goto(`${installation.kms.apiUrl}/`);
    await page.getByText('Audit chain').waitFor();
    await look('landing');
    await visitor.signIn(installation.kms.apiUrl, token);
    for (const [name, path, ready] of VIEWS) {
      await open(visitor, path);
      await page.locator('#content').getByText(ready).last().waitFor();
      await look(name);
    }
    // Looking around is not on record.
    expect(await criticalRecords()).toBe(before);
  });

  it('shows what the token may do, and no view that it may not use', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, auditor);
    await page.getByRole('heading', { name: 'Audit' }).waitFor();
    const names = await page.getByRole('navigation', { name: 'Views' }).getByRole('link').allTextContents();
    expect(names).toEqual(['Audit', 'Inspect a token', 'State']);
    await page.getByRole('button', { name: /auditor/ }).click();
    await page.getByText('read and verify the audit chain').waitFor();
  });

  it('refuses a token of the other service, and says where it belongs', async () => {
    await using visitor = await browser.visit();
    await visitor.signIn(installation.kms.apiUrl, await installation.client());
    await visitor.page.getByText('This is a token for Bundoc.').waitFor();
  });

  it('rotates a key', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await page.getByRole('link', { name: 'globex-dek' }).click();
    await page.getByRole('button', { name: 'Rotate' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate' }).click();
    await page.getByRole('row', { name: /2 current/ }).waitFor();
    expect((await ask('/v1/keys/globex-dek')).json()['version']).toBe(2);
  });

  it('issues a token, shows it once, and revokes it', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await open(visitor, '/console/tokens/new');
    await page.getByLabel('Subject').fill('billing');
    await page.getByRole('textbox', { name: 'Projects' }).fill('acme');
    await page.getByText('to do this for project acme').waitFor();
    await page.getByRole('button', { name: 'Issue', exact: true }).click();
    await page.getByRole('heading', { name: 'Issued' }).waitFor();
    const issued = (await page.locator('.receipt').textContent()) ?? '';
    const documents = '/v1/projects/acme/collections/notes/documents/1';
    expect((await call(installation.url, documents, { token: issued })).status).toBe(200);
    await open(visitor, '/console/tokens');
    await page.getByRole('button', { name: 'Revoke billing' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('row', { name: /billing.*revoked/ }).waitFor();
    await expect
      .poll(async () => (await call(installation.url, documents, { token: issued })).status)
      .toBe(401);
  });

  it('verifies the chain against a receipt, and names the first record that was changed', async () => {
    const kept = await receipt();
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, auditor);
    await page.getByLabel('Receipt').fill(kept);
    await page.getByRole('button', { name: 'Verify' }).click();
    await page.getByText('is the one of the receipt').waitFor();
    await page.getByLabel('Receipt').fill(`2:${'0'.repeat(64)}`);
    await page.getByRole('button', { name: 'Verify' }).click();
    await page.getByText('record 2 is not the record of the receipt').waitFor();
    using store = new DatabaseSync(join(installation.kmsDir, 'bunkms.sqlite'));
    store.exec("UPDATE audit SET actor = 'nobody' WHERE seq = 3");
    await page.getByLabel('Receipt').fill('');
    await page.getByRole('button', { name: 'Verify' }).click();
    await page.getByText('record 3 is changed').waitFor();
  });
});
