import { freePort } from '@bundoc/shared/testing/free-port';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestBrowser } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

/** The smallest log. Bundoc writes the catalog of a project when a third of it is used. */
const LOG_BYTES = 67_108_864;
const FILLING = { timeout: 300_000, interval: 0 };

describe('the console of a Bundoc that stops or is slow', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  let token: string;
  const clock = new MovedClock();
  const documents = '/v1/projects/acme/collections/notes/documents';
  const put = (id: string, body: string) =>
    call(installation.url, `${documents}/${id}`, { method: 'PUT', token, body });

  beforeAll(async () => {
    // The restarted service must have the URL that the page was loaded from.
    installation = await Installation.start({
      clock,
      environment: { BUNDOC_PORT: String(await freePort()), BUNDOC_LOG_BYTES: String(LOG_BYTES) },
    });
    token = await installation.client(['*'], ['docs:read', 'docs:write']);
    await put('first', '{"v":1}');
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  it('says that the service is down, keeps the typed text, and stores it once the service is back', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await visitor.open('/console/projects/acme/collections/notes/documents/first');
    await visitor.replaceText('Text of the document', '{"v":"typed while it was gone"}');
    await installation.stopBundoc();
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Bundoc does not answer').waitFor();
    await page.getByRole('alert').getByText('network_error').waitFor();
    await visitor.expectAccessible();
    await installation.startBundoc();
    await page.getByText('Bundoc does not answer').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Saved.').waitFor();
    expect((await call(installation.url, `${documents}/first`, { token })).text).toContain(
      '"v":"typed while it was gone"',
    );
  });

  it('loads the view automatically once the service is back', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await visitor.signIn(installation.url, token);
    await page.getByRole('link', { name: 'acme' }).waitFor();
    await installation.stopBundoc();
    await visitor.open('/console/projects/acme/collections/notes');
    await page.getByText('Bundoc does not answer').waitFor();
    await installation.startBundoc();
    await page.getByText('Bundoc does not answer').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Open the project' }).click();
    await page.getByRole('link', { name: 'first' }).waitFor();
  });

  it('says that the service is slow, and shows the answer when it arrives', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    const answered = Promise.withResolvers<void>();
    await page.route('**/v1/projects?*', async (route) => {
      await answered.promise;
      await route.continue();
    });
    await visitor.signIn(installation.url, token);
    await page.getByText('Bundoc answers slowly').waitFor();
    await visitor.expectAccessible();
    answered.resolve();
    await page.getByRole('link', { name: 'acme' }).waitFor();
    await page.getByText('Bundoc answers slowly').waitFor({ state: 'detached' });
  });

  it('follows changes across a restart of the service, and misses none', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    await put('opened', '{"v":1}');
    await visitor.signIn(installation.url, token);
    const following = page.waitForRequest((request) => /changes\?since=(?!now)/.test(request.url()));
    await visitor.open('/console/projects/acme/changes');
    await following;
    await put('before', '{"v":1}');
    await page.getByRole('link', { name: 'before' }).waitFor();
    await installation.stopBundoc();
    await page.getByText('waiting for Bundoc').waitFor();
    await installation.startBundoc();
    // The page must show this change, whether it is made before or after the page reconnects.
    await put('behind', '{"v":1}');
    await page.getByRole('link', { name: 'behind' }).waitFor();
    await page.getByText('live', { exact: true }).waitFor();
    const seen = await page.getByRole('row').getByRole('link').allTextContents();
    expect(seen.filter((name) => name !== 'notes')).toEqual(['behind', 'before']);
  });

  // This test is last because it moves the clock of the services.
  it('says that the position of a feed is too old after eight days, and starts again from now', async () => {
    await using visitor = await browser.visit();
    const { page } = visitor;
    token = await installation.issue({
      sub: 'app',
      typ: 'service',
      projects: ['*'],
      ttl_s: 30 * 86_400,
      scope: ['docs:read', 'docs:write'],
    });
    await put('doomed', '{"v":1}');
    await visitor.signIn(installation.url, token);
    const following = page.waitForRequest((request) => /changes\?since=(?!now)/.test(request.url()));
    await visitor.open('/console/projects/acme/changes');
    await following;
    await put('seen', '{"v":1}');
    await page.getByRole('link', { name: 'seen' }).waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.getByText('paused').waitFor();
    const changes = (since: string) =>
      call(installation.url, `/v1/projects/acme/changes?since=${since}`, { token });
    const since = String((await changes('now')).json()['since']);
    await call(installation.url, `${documents}/doomed`, { method: 'DELETE', token });
    await installation.stopBundoc();
    clock.movedMs = 8 * 86_400_000;
    await installation.startBundoc();
    // Bundoc forgets the deletion when it writes the catalog of the project: after some megabytes of writes.
    await expect
      .poll(async () => {
        await put('filling', `{"pad":"${'x'.repeat(900_000)}"}`);
        return (await changes(since)).json()['code'];
      }, FILLING)
      .toBe('position_gone');

    await page.getByRole('button', { name: 'Resume' }).click();
    await page.getByText('The position to resume from is too old').waitFor();
    await visitor.look('bundoc-changes-too-old');
    const again = page.waitForRequest((request) => /changes\?since=(?!now)/.test(request.url()));
    await page.getByRole('button', { name: 'Start from now' }).click();
    await again;
    await put('later', '{"v":1}');
    await page.getByRole('link', { name: 'later' }).waitFor();
  });
});
