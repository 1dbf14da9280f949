import { readFileSync } from 'node:fs';
import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestBrowser, type Visitor } from './support/browser.ts';
import { call, Installation } from './support/installation.ts';

/**
 * The largest document of its service, with many values: it is slow to parse. With LONG_TESTS=1 it is the
 * largest one that any service stores.
 */
const DOCUMENT_BYTES = runs(4_194_304, 16_777_216);
const dense = () => {
  const value = '"abcdefgh",';
  const count = Math.floor((DOCUMENT_BYTES - 100) / value.length);
  return `{"v":12345678901234567890,\r\n\t"list":[${value.repeat(count)}1.10]}`;
};
/** The most characters that the page parses or renders at once. */
const AT_ONCE_MAX = 300_000;
/** Many more than one page shows, or one answer of the API may have. */
const PROJECTS = runs(600, 10_000);
/** Records the length of the longest parsed text. */
const WATCH_PARSE = `
  globalThis.__longestParsed = 0;
  const { parse } = JSON;
  JSON.parse = (text, ...rest) => {
    globalThis.__longestParsed = Math.max(globalThis.__longestParsed, String(text).length);
    return parse(text, ...rest);
  };
`;

describe('the console with large data', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  let token: string;
  let auditor: string;
  const criticalRecords = async () => {
    let count = 0;
    for (let cursor: unknown = 0; cursor !== undefined; ) {
      const path = `/v1/audit?severity=CRITICAL&limit=500&cursor=${cursor}`;
      const page = (await call(installation.kms.apiUrl, path, { token: auditor })).json();
      count += (page['records'] as unknown[]).length;
      cursor = page['next_cursor'];
    }
    return count;
  };

  beforeAll(async () => {
    installation = await Installation.start({
      environment: { BUNDOC_MAX_DOCUMENT_BYTES: String(DOCUMENT_BYTES) },
    });
    token = await installation.issue({
      sub: 'app',
      typ: 'service',
      projects: ['*'],
      ttl_s: 3_600,
      scope: ['docs:read', 'docs:write', 'docs:metrics'],
    });
    auditor = await installation.issue({ sub: 'auditor', typ: 'client', scope: ['kms:audit'] });
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  describe(`a document of ${DOCUMENT_BYTES / 1_048_576} MiB`, () => {
    const documents = '/v1/projects/acme/collections/notes/documents';
    const text = dense();
    const expectNoFreeze = async ({ page }: Visitor) => {
      expect(await page.evaluate<number>('globalThis.__longestParsed')).toBeLessThan(AT_ONCE_MAX);
      expect(await page.evaluate<number>('document.body.textContent.length')).toBeLessThan(AT_ONCE_MAX);
    };
    beforeAll(async () => {
      const options = { method: 'PUT', token };
      const stored = await call(installation.url, `${documents}/large`, { ...options, body: text });
      expect(stored.status, stored.text).toBe(201);
      await call(installation.url, `${documents}/small`, { ...options, body: '{"v":1}' });
    });

    it('is read in slices and downloaded byte for byte, and is neither parsed nor rendered at once', async () => {
      await using visitor = await browser.visit();
      const { page } = visitor;
      await page.addInitScript({ content: WATCH_PARSE });
      await visitor.signIn(installation.url, token);
      await visitor.open('/console/projects/acme/collections/notes/documents/large');
      await page.getByText('too much to edit here').waitFor();
      const slice = page.getByRole('region', { name: 'A slice of the text' });
      expect(await slice.textContent()).toContain('12345678901234567890');
      await page.getByRole('spinbutton').fill('999999');
      await page.keyboard.press('Enter');
      await expect.poll(() => slice.textContent()).toMatch(/1\.10\]\}$/);
      const downloading = page.waitForEvent('download');
      await page.getByRole('button', { name: 'Download' }).click();
      const stored = readFileSync(await (await downloading).path(), 'utf8');
      expect(stored === text, 'the file is the document').toBe(true);
      await expectNoFreeze(visitor);
    });

    it('is listed and found among small ones, and is neither parsed nor rendered at once', async () => {
      await using visitor = await browser.visit();
      const { page } = visitor;
      await page.addInitScript({ content: WATCH_PARSE });
      await visitor.signIn(installation.url, token);
      await visitor.open('/console/projects/acme/collections/notes');
      await page.getByRole('row', { name: /large.*12345678901234567890/ }).waitFor();
      await visitor.open('/console/projects/acme/collections/notes?fields=v,list');
      await page.getByRole('row', { name: /large.*too long for a list/ }).waitFor();
      await visitor.open('/console/projects/acme/collections/notes/query');
      await page.getByRole('button', { name: 'Run' }).click();
      await page.getByRole('row', { name: /large.*12345678901234567890/ }).waitFor();
      await expectNoFreeze(visitor);
    });
  });

  describe(`a list of ${PROJECTS} projects`, () => {
    const AT_ONCE = 32;
    const name = (n: number) => `p-${String(n).padStart(5, '0')}`;
    beforeAll(async () => {
      let next = 0;
      const make = async () => {
        for (let n = next++; n < PROJECTS; n = next++) {
          const path = `/v1/projects/${name(n)}/collections/notes/documents/1`;
          const made = await call(installation.url, path, { method: 'PUT', token, body: '{"v":1}' });
          expect(made.status, made.text).toBe(201);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, make));
      // All projects are closed, and no key is in memory.
      await installation.stopBundoc();
      await installation.startBundoc();
    });

    it('takes one request and fifty rows a page, finds a project by its name, opens none and fetches no key', async () => {
      const before = await criticalRecords();
      await using visitor = await browser.visit();
      const { page } = visitor;
      const asked: string[] = [];
      page.on('request', (request) => {
        if (request.url().includes('/v1/projects')) asked.push(request.url());
      });
      await visitor.signIn(installation.url, token);
      const rowOf = (n: number) => page.getByRole('row', { name: new RegExp(`${name(n)}.*closed.*no key`) });
      await rowOf(0).waitFor();
      for (let n = 50; n <= 500; n += 50) {
        await page.getByRole('button', { name: 'Next' }).click();
        await rowOf(n).waitFor();
        expect(await page.getByRole('row').count()).toBe(51);
      }
      await page.getByText('page 11').waitFor();
      await page.getByLabel('Find by the first letters').fill(name(PROJECTS - 1));
      await rowOf(PROJECTS - 1).waitFor();
      expect(await page.getByRole('row').count()).toBe(2);
      // The current page is requested again every five seconds. No request asks for more than a page.
      expect(asked.every((url) => url.includes('limit=50') && url.includes('include=summary'))).toBe(true);
      expect(await criticalRecords()).toBe(before);
      expect(await installation.metrics()).toMatch(/^bundoc_projects_open 0$/m);
    });
  });
});
