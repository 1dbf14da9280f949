import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { scopeSchema } from '@bundoc/shared/contract/tokens';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bunkms } from '../packages/bunkms/test/support/command.ts';
import { Customer } from '../packages/bunkms/test/support/customer.ts';
import { LOOKS, OWN_FILES, TestBrowser, writtenFile } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

describe('the console of BunKMS', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  let customer: Customer;
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

  beforeAll(async () => {
    const keks = [1, 2].map(() => randomBytes(32).toString('hex'));
    customer = await Customer.start();
    installation = await Installation.start({
      kmsEnvironment: { BUNKMS_KEK: keks.join('\n'), BUNKMS_OUTSIDE_KEYS_FILE: customer.file },
    });
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
      scope: [
        'kms:read_key',
        'kms:rotate_key',
        'kms:manage_key',
        'kms:manage_kek',
        'kms:audit',
        'kms:admin',
        'kms:metrics',
      ],
      keys: ['*'],
      ttl_s: 3_600,
      // Everything: a narrow one would list and revoke only what it has issued.
      may_issue: { scopes: [...scopeSchema.options], projects: ['*'], keys: ['*'], ttl_s: 86_400 },
    });
    auditor = await installation.issue({ sub: 'auditor', typ: 'client', scope: ['kms:audit'] });
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
    await customer?.[Symbol.asyncDispose]();
  });

  const VIEWS: readonly (readonly [name: string, path: string, ready: string])[] = [
    ['keys', '/console/', 'umbrella-dek'],
    ['key', '/console/keys/acme-dek', 'Leases'],
    ['storages', '/console/storages', 'never'],
    ['audit', '/console/audit', 'CRITICAL'],
    ['tokens', '/console/tokens', 'operator'],
    ['issue', '/console/tokens/new', 'will be able'],
    ['inspect', '/console/tokens/inspect', 'The token is read only in this page'],
    ['kek', '/console/kek', 'current'],
    ['state', '/console/state', 'deletions 0'],
  ];

  it.each(LOOKS)('has no view with an axe violation or an overflow: %s, %i px', async (theme, width) => {
    await using visitor = await browser.visit({ theme, width });
    const { page } = visitor;
    const before = await criticalRecords();
    const look = (name: string) =>
      visitor.look(`bunkms-${name}`, name === 'audit' ? 'console-audit' : undefined);
    await page.goto(`${installation.kms.apiUrl}/`);
    await page.getByText('Audit chain').waitFor();
    await look('landing');
    await visitor.signIn(installation.kms.apiUrl, token);
    for (const [name, path, ready] of VIEWS) {
      await visitor.open(path);
      await page.locator('#content').getByText(ready).last().waitFor();
      await look(name);
    }
    // Browsing adds no record.
    expect(await criticalRecords()).toBe(before);
  });

  it('shows on the page of each service a command that issues a token for its console', async () => {
    for (const [url, view] of [
      [installation.url, 'Projects'],
      [installation.kms.apiUrl, 'Keys'],
    ] as const) {
      await using visitor = await browser.visit();
      const { page } = visitor;
      await page.goto(`${url}/`);
      const command = (await page.locator('.command').textContent()) ?? '';
      const [, options = ''] = /^npm run -s token -- (.*)$/.exec(command) ?? [];
      const words = [...options.matchAll(/"([^"]*)"|(\S+)/g)].map(
        ([, quoted, plain]) => quoted ?? plain ?? '',
      );
      const issued = await bunkms(installation.kmsEnvironment, 'token', 'issue', ...words);
      expect(issued).toMatchObject({ code: 0 });
      await visitor.signIn(url, issued.stdout.trim());
      await page.getByRole('heading', { name: view, level: 1 }).waitFor();
      await page.getByRole('link', { name: /^acme/ }).waitFor();
    }
  });

  it('shows the permissions of the token, and no view that it may not use', async () => {
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

  it('shows the outside key of a customer, which versions need it, and its last success and error', async () => {
    await ask('/v1/keys/initech-dek/outside', { method: 'PUT', body: '{"key":"acme"}' });
    const encrypter = await installation.issue({
      sub: 'app',
      typ: 'service',
      scope: ['kms:encrypt'],
      keys: ['initech-dek'],
    });
    customer.attitude = 'denying';
    await call(installation.kms.apiUrl, '/v1/encrypt/initech-dek', {
      method: 'POST',
      token: encrypter,
      body: '{"plaintext_b64":"aGk="}',
    });
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/keys/initech-dek');
    await page.getByRole('heading', { name: 'Outside key' }).waitFor();
    await page.getByText('outside_key_denied').waitFor();
    await page.getByRole('row', { name: /^2 current .* the KEK and acme$/ }).waitFor();
    await page.getByRole('row', { name: /^1 available .* the KEK$/ }).waitFor();
    await visitor.expectAccessible();
    await visitor.open('/console/keys/globex-dek');
    await page.getByRole('heading', { name: 'Leases' }).waitFor();
    expect(await page.getByRole('heading', { name: 'Outside key' }).count()).toBe(0);
  });

  it('assigns a key to another storage, and lets a copy take over a storage, once the user confirms', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/keys/umbrella-dek');
    await page.getByRole('button', { name: 'Take over' }).click();
    const dialog = page.getByRole('dialog');
    const storage = '6f1c0a52-3d1f-4f4e-9d5b-0a1b2c3d4e5f';
    await dialog.getByLabel('Id of the storage').fill('6f1c0a52');
    expect(await dialog.getByRole('button', { name: 'Take over' }).isDisabled()).toBe(true);
    await dialog.getByLabel('Id of the storage').fill(storage);
    await visitor.expectAccessible();
    await dialog.getByRole('button', { name: 'Take over' }).click();
    await dialog.getByText('lease_live').waitFor();
    await dialog.getByLabel('Do not wait').check();
    await dialog.getByRole('button', { name: 'Take over' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect((await ask('/v1/keys/umbrella-dek')).json()['holder']).toBe(storage);

    const own = await installation.storageId();
    await visitor.open('/console/storages');
    await page.getByRole('row', { name: new RegExp(`${own}.*never`) }).waitFor();
    await page.getByRole('button', { name: `Let a copy take over ${own.slice(0, 8)}` }).click();
    await visitor.expectAccessible();
    await dialog.getByRole('button', { name: 'Take over' }).click();
    await dialog.getByText('lease_live').waitFor();
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('row', { name: new RegExp(`${own}.*never`) }).waitFor();
  });

  it('disables and enables a key, schedules its destruction, takes that back, and destroys it for ever', async () => {
    await call(installation.url, '/v1/projects/ending/collections/notes/documents/1', {
      method: 'PUT',
      token: await installation.client(),
      body: '{"v":1}',
    });
    const destroyer = await installation.issue({
      sub: 'destroyer',
      typ: 'service',
      keys: ['ending-dek'],
      scope: ['kms:read_key', 'kms:manage_key', 'kms:destroy_key', 'kms:audit'],
    });
    const state = async () => (await ask('/v1/keys/ending-dek')).json()['state'];
    await using visitor = await browser.visit();
    const { page } = visitor;
    const dialog = page.getByRole('dialog');
    const act = async (button: string, confirm = button) => {
      await page.locator('.head').getByRole('button', { name: button, exact: true }).click();
      await dialog.getByRole('button', { name: confirm, exact: true }).click();
      await dialog.waitFor({ state: 'detached' });
    };
    await visitor.signIn(installation.kms.apiUrl, destroyer);
    await visitor.open('/console/keys/ending-dek');
    await act('Disable');
    await page.getByText('disabled', { exact: true }).waitFor();
    expect(await state()).toBe('disabled');
    await act('Enable');
    await page.getByText('enabled', { exact: true }).waitFor();
    expect(await state()).toBe('enabled');
    await act('Delete in 30 days');
    await page.getByText('to be deleted').waitFor();
    expect(await state()).toBe('pending_deletion');
    await act('Restore');
    await page.getByText('disabled', { exact: true }).waitFor();

    await page.getByRole('button', { name: 'Destroy now' }).click();
    const destroy = dialog.getByRole('button', { name: 'Destroy for ever' });
    await dialog.getByLabel('Type the name of the key').fill('ending');
    expect(await destroy.isDisabled()).toBe(true);
    expect(await state()).toBe('disabled');
    await dialog.getByLabel('Type the name of the key').fill('ending-dek');
    await destroy.click();
    await page.getByText('The key is destroyed.').waitFor();
    const downloading = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download' }).click();
    const receipt = JSON.parse(readFileSync(await (await downloading).path(), 'utf8'));
    const record = (await ask(`/v1/audit?cursor=${receipt.audit.seq - 1}&limit=1`)).json()['records'];
    expect(record).toMatchObject([
      { action: 'key.destroy', severity: 'CRITICAL', key: 'ending-dek', hash: receipt.audit.hash },
    ]);
  });

  it('lists keys from a name on, with that key first', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await page.getByRole('link', { name: 'acme-dek' }).waitFor();
    await page.getByLabel('Names from').fill('initech-dek');
    await expect
      .poll(() => page.getByRole('row').getByRole('link').allTextContents())
      .toEqual(['initech-dek', 'umbrella-dek']);
  });

  it('shows the KEKs, but no change of them, to a token without kms:manage_kek', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(
      installation.kms.apiUrl,
      await installation.issue({ sub: 'reader', typ: 'service', scope: ['kms:admin'] }),
    );
    await visitor.open('/console/kek');
    await page.getByRole('row', { name: /staged/ }).waitFor();
    expect(await page.getByRole('button', { name: 'Rotate' }).count()).toBe(0);
  });

  it('rotates the KEK with its progress, and names the keys that no holder has fetched since', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    const dialog = page.getByRole('dialog');
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/kek');
    const staged = await page
      .getByRole('row', { name: /staged/ })
      .getByRole('rowheader')
      .textContent();
    const former = await page
      .getByRole('row', { name: /current/ })
      .getByRole('rowheader')
      .textContent();
    await page.getByRole('button', { name: 'Rotate' }).click();
    await dialog.getByText(`${staged}`).waitFor();
    await dialog.getByRole('button', { name: 'Rotate' }).click();
    await page.getByText('Last rotation').waitFor();
    await page.getByRole('row', { name: new RegExp(`^${staged} current`) }).waitFor();
    await page.getByRole('row', { name: new RegExp(`^${former} previous`) }).waitFor();
    expect((await ask('/v1/kek')).json()['current']).toBe(staged);

    await page.getByRole('button', { name: 'Retire' }).click();
    await dialog.getByText('acme-dek').waitFor();
    await dialog.getByRole('button', { name: 'Retire' }).click();
    await dialog.getByText('kek_unfetched').waitFor();
    await visitor.expectAccessible();
    await dialog.getByRole('button', { name: 'Keep it' }).click();
    await page.getByRole('row', { name: new RegExp(`^${former} previous`) }).waitFor();
  });

  it('revokes a token with all tokens that it has issued', async () => {
    const issuer = await installation.issue({
      sub: 'issuer',
      typ: 'service',
      scope: ['kms:issue_client'],
      may_issue: { scopes: ['docs:read'], projects: ['*'], keys: [], ttl_s: 3_600 },
    });
    const made = await call(installation.kms.apiUrl, '/v1/tokens', {
      method: 'POST',
      token: issuer,
      body: JSON.stringify({ sub: 'issued', typ: 'client', scope: ['docs:read'], projects: ['acme'] }),
    });
    expect(made.status, made.text).toBe(201);
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/tokens');
    await page.getByRole('button', { name: 'Revoke issuer' }).click();
    await page.getByLabel('Also revoke all tokens that it has issued').check();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('row', { name: /^issuer.*revoked/ }).waitFor();
    await page.getByRole('row', { name: /^issued.*revoked/ }).waitFor();
    const documents = '/v1/projects/acme/collections/notes/documents/1';
    await expect
      .poll(
        async () =>
          (await call(installation.url, documents, { token: made.json()['token'] as string })).status,
      )
      .toBe(401);
  });

  it('shows the claims of an inspected token as text, however hostile they are, and sends it nowhere', async () => {
    const hostile = '<img src=x onerror=alert(1)>\u202e"&lt;script&gt;';
    const claims = {
      aud: 'bundoc',
      sub: hostile.repeat(4_000),
      typ: hostile,
      scope: `docs:read ${'x'.repeat(100_000)}`,
      projects: [hostile, 'y'.repeat(100_000)],
      keys: [],
      jti: hostile,
      exp: 4_102_444_800,
    };
    const forged = `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`;
    await using visitor = await browser.visit({ width: 360 });
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/tokens/inspect');
    const sent: string[] = [];
    page.on('request', (request) => {
      if (!request.url().includes('/console/assets/')) sent.push(request.url());
    });
    await page.getByLabel('Token', { exact: true }).fill(forged);
    await page.getByText('A token for Bundoc').waitFor();
    await page.getByText('onerror=alert(1)').first().waitFor();
    expect(await page.locator('#content img').count()).toBe(0);
    expect((await page.locator('#content').textContent())?.includes('\u202e')).toBe(false);
    expect((await page.locator('#content').textContent())?.length).toBeLessThan(5_000);
    await visitor.expectNoOverflow();
    await visitor.expectAccessible();
    expect(sent).toEqual([]);
  });

  it('finds records by key, actor and time, follows new ones live, and exports them all', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await page.addInitScript({ content: OWN_FILES });
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/audit');
    await page
      .getByRole('row', { name: /umbrella-dek/ })
      .first()
      .waitFor();
    const keys = () => page.getByRole('table').getByText(/-dek$/).allTextContents();
    await page.getByLabel('Key', { exact: true }).fill('acme-dek');
    await page.getByRole('button', { name: 'Filter' }).click();
    await expect.poll(async () => [...new Set(await keys())]).toEqual(['acme-dek']);
    await page.getByLabel('From (UTC)').fill('2100-01-01T00:00');
    await page.getByRole('button', { name: 'Filter' }).click();
    await page.getByText('No matching records').waitFor();
    await page.getByRole('button', { name: 'Clear' }).click();
    await page
      .getByRole('row', { name: /umbrella-dek/ })
      .first()
      .waitFor();

    await page.getByRole('button', { name: 'Follow live' }).click();
    await page.getByText('live', { exact: true }).waitFor();
    await installation.issue({ sub: 'seen-live', typ: 'client', scope: ['docs:read'], projects: ['acme'] });
    const { seq } = (await ask('/v1/audit/head')).json();
    await page.getByRole('row', { name: new RegExp(`^${seq} .*token.issue`) }).waitFor();
    await page.getByLabel('Severity').selectOption('CRITICAL');
    await expect.poll(() => page.getByRole('row').getByText('INFO').count()).toBe(0);
    await visitor.expectAccessible();
    await page.getByRole('button', { name: 'Stop following' }).click();

    await page.getByRole('button', { name: 'Clear' }).click();
    await page.getByRole('button', { name: 'Export' }).click();
    await page.getByRole('button', { name: 'NDJSON' }).click();
    await page.getByRole('button', { name: 'Choose a file' }).click();
    await page.getByText(/^Done: /).waitFor();
    const lines = (await writtenFile(page, 'audit.ndjson')).trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { seq: number }).seq)).toEqual(
      Array.from({ length: Number((await ask('/v1/audit/head')).json()['seq']) }, (_, at) => at + 1),
    );
  });

  it('shows with the receipt of a shredded project that its key is destroyed, and refuses a forged receipt', async () => {
    const admin = await installation.client(['*'], ['docs:admin']);
    const shredded = await call(installation.url, '/v1/projects/initech?confirm=initech', {
      method: 'DELETE',
      token: admin,
    });
    expect(shredded.status, shredded.text).toBe(200);
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, auditor);
    await page.getByLabel('Receipt').fill(shredded.text);
    await page.getByText('The receipt of a shredded project').waitFor();
    await page.getByRole('button', { name: 'Verify' }).click();
    await page.getByText('The key of project initech is destroyed.').waitFor();
    await visitor.expectAccessible();
    // A receipt of another project, and one in which only the name of the project is changed.
    for (const forged of [
      shredded.text.replaceAll('initech', 'acme'),
      shredded.text.replace('"project":"initech"', '"project":"globex"'),
    ]) {
      expect(forged).not.toBe(shredded.text);
      const { project } = JSON.parse(forged);
      await page.getByLabel('Receipt').fill(forged);
      await page.getByRole('button', { name: 'Verify' }).click();
      await page.getByText(`It does not show that project ${project} was shredded.`).waitFor();
    }
  });

  it('issues a token, shows it once, and revokes it', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.kms.apiUrl, token);
    await visitor.open('/console/tokens/new');
    await page.getByLabel('Subject').fill('billing');
    await page.getByRole('textbox', { name: 'Projects' }).fill('acme');
    await page.getByText('to do this for project acme').waitFor();
    await page.getByRole('button', { name: 'Issue', exact: true }).click();
    await page.getByRole('heading', { name: 'Issued' }).waitFor();
    const issued = (await page.locator('.receipt').textContent()) ?? '';
    const documents = '/v1/projects/acme/collections/notes/documents/1';
    expect((await call(installation.url, documents, { token: issued })).status).toBe(200);
    await visitor.open('/console/tokens');
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
    await page.getByText('matches the receipt').waitFor();
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
