import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestBrowser } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

describe('the console by keyboard alone', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  let token: string;
  const documents = '/v1/projects/acme/collections/notes/documents';

  beforeAll(async () => {
    installation = await Installation.start();
    token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    for (const path of [
      ...[1, 2, 3].map((n) => `${documents}/note-${n}`),
      '/v1/projects/globex/collections/notes/documents/1',
    ])
      await call(installation.url, path, { method: 'PUT', token, body: '{"title":"before"}' });
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  it('lets a user sign in, browse, edit, save, query and shred', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    const { keyboard } = page;
    const follow = async (link: string, heading: string) => {
      await visitor.tabTo(link);
      await keyboard.press('Enter');
      await page.getByRole('heading', { name: heading, level: 1 }).waitFor();
      await expect.poll(() => visitor.focused()).toBe(heading);
    };
    await page.goto(`${installation.url}/console/`);
    await page.getByLabel('Token', { exact: true }).waitFor();
    await visitor.tabTo('Token');
    await keyboard.insertText(token);
    await keyboard.press('Enter');
    await page.getByRole('link', { name: 'globex' }).waitFor();
    await expect.poll(() => visitor.focused()).toBe('Projects');

    await follow('acme', 'acme');
    await page.getByRole('link', { name: 'notes' }).waitFor();
    await follow('notes', 'notes');
    await page.getByRole('link', { name: 'note-2' }).waitFor();
    await follow('note-2', 'note-2');
    await visitor.editor('Text of the document').waitFor();
    await visitor.tabTo('Text of the document');
    await keyboard.press('ControlOrMeta+a');
    await keyboard.insertText('{"title":"typed"}');
    await keyboard.press('ControlOrMeta+Enter');
    await page.getByText('Saved.').waitFor();
    expect((await call(installation.url, `${documents}/note-2`, { token })).text).toContain(
      '"title":"typed"}',
    );

    // Tab leaves the editor, and so does Shift+Tab.
    await keyboard.press('Shift+Tab');
    expect(await visitor.focused()).not.toBe('Text of the document');
    await visitor.tabTo('Text of the document');
    await keyboard.press('Tab');
    expect(await visitor.focused()).not.toBe('Text of the document');

    await visitor.open('/console/projects/acme/collections/notes/query');
    await visitor.editor('Text of the request: Find').waitFor();
    await visitor.tabTo('Text of the request: Find');
    await keyboard.press('ControlOrMeta+a');
    await keyboard.insertText('{"where":{"title":"typed"}}');
    await visitor.tabTo('Run');
    await keyboard.press('Enter');
    await page.getByRole('link', { name: 'note-2' }).waitFor();
    expect(await page.getByRole('row').count()).toBe(2);

    await visitor.open('/console/projects/globex/shred');
    await page.getByLabel('Type the name of the project').waitFor();
    await visitor.tabTo('Type the name of the project to confirm');
    await keyboard.type('globex');
    await keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Shredded' }).waitFor();
    expect((await call(installation.url, '/v1/projects/globex', { token })).status).toBe(410);
  });

  it('moves the focus in reading order', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes');
    await page.getByRole('link', { name: 'note-3' }).waitFor();
    await expect.poll(() => visitor.focused()).toBe('notes');
    await page.reload();
    await visitor.paste(token, 'Sign in');
    await page.getByRole('link', { name: 'note-3' }).waitFor();
    // From the very beginning of the page.
    await page.locator('a.skip').focus();
    const stops = [await visitor.focused()];
    for (let stop = ''; !stop.startsWith('Requests'); stops.push(stop)) {
      await page.keyboard.press('Tab');
      stop = await visitor.focused();
    }
    expect(stops.map((stop) => stop.replace(/^(app|Requests).*$/, '$1'))).toEqual([
      ...['Skip to the content', 'Bundoc', 'Projects', 'Receipt', 'State', 'app', 'Theme'],
      ...['Projects', 'acme', 'notes', 'Documents', 'Query', 'Import', 'Definition'],
      ...['Export', 'New document', 'Show only these fields', 'Show', 'Documents'],
      ...['note-1', 'note-2', 'note-3', 'Reload', 'Requests'],
    ]);
  });

  it('skips to the content, keeps the focus in a dialog, and restores it afterwards', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByRole('link', { name: 'acme' }).waitFor();
    await page.locator('a.skip').focus();
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    expect(await visitor.focused()).toBe('New project');

    const chip = page.getByRole('button', { name: /^app/ });
    await chip.focus();
    const name = (await visitor.focused()).slice(0, 3);
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    for (let n = 0; n < 6; n++) {
      await page.keyboard.press('Tab');
      const stops = ['How do I get a token that may do more?', 'Sign out', 'Close', ''];
      expect(stops).toContain(await visitor.focusedWithin('dialog'));
    }
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await expect.poll(async () => (await visitor.focused()).slice(0, 3)).toBe(name);
  });
});
