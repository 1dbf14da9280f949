import { afterEach, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const BROWSER = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' };
let installation: Installation;
afterEach(() => installation[Symbol.asyncDispose]());

it('serves the console to browsers at the client listeners, and never at the internal one', async () => {
  installation = await Installation.start();
  for (const [url, title] of [
    [installation.url, 'Bundoc'],
    [installation.kms.apiUrl, 'BunKMS'],
  ] as const) {
    for (const path of ['/', '/console/', '/console/some/view']) {
      const page = await call(url, path, { headers: BROWSER });
      expect([page.status, page.headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
      expect(page.text).toContain(`<title>${title}</title>`);
      expect(page.headers['content-security-policy']).toContain("default-src 'none'");
    }
    expect((await call(url, '/')).json()).toMatchObject({ service: title.toLowerCase() });
  }
  const { internalUrl } = installation.kms;
  for (const path of ['/', '/console', '/console/', '/console/assets/x.js'])
    expect((await call(internalUrl, path, { headers: BROWSER })).status).toBe(404);
});

it('serves no console when it is turned off, and describes the service in JSON', async () => {
  installation = await Installation.start({
    environment: { BUNDOC_CONSOLE: 'off' },
    kmsEnvironment: { BUNKMS_CONSOLE: 'off' },
  });
  for (const url of [installation.url, installation.kms.apiUrl]) {
    expect((await call(url, '/console/', { headers: BROWSER })).status).toBe(404);
    const root = await call(url, '/', { headers: BROWSER });
    expect(root.json()['links']).not.toHaveProperty('console');
  }
});
