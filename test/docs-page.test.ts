import { join } from 'node:path';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { looksOf, TestBrowser } from './support/browser.ts';
import { Installation } from './support/installation.ts';

/** The folder for pictures of the pages, if they are wanted. */
const pictures = process.env['CONSOLE_PICTURES'];

// Code for the page is text, because the tests do not have the types of a page.
const SHARED = ['--ground', '--panel', '--line', '--text', '--muted', '--accent', '--accent-fill', '--bad'];
/** What the shared variables are in a page, and its font. */
const VARIABLES = `(() => {
  const probe = document.body.appendChild(document.createElement('i'));
  const values = ${JSON.stringify(SHARED)}.map((name) => {
    probe.style.color = 'var(' + name + ')';
    return [name, getComputedStyle(probe).color];
  });
  probe.style.fontFamily = 'var(--sans)';
  values.push(['--sans', getComputedStyle(probe).fontFamily]);
  probe.remove();
  return Object.fromEntries(values);
})()`;
const USED = `(() => {
  const style = (selector) => getComputedStyle(document.querySelector(selector));
  return {
    '--ground': style('body').backgroundColor,
    '--text': style('.info .title').color,
    '--accent': style('.info a').color,
    '--panel': style('.opblock').backgroundColor,
    '--sans': style('.opblock-tag').fontFamily,
  };
})()`;

type Values = Readonly<Record<string, string>>;

describe('the API reference at /docs', needs('chromium'), () => {
  let installation: Installation;
  let browser: TestBrowser;
  beforeAll(async () => {
    installation = await Installation.start();
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    await installation?.[Symbol.asyncDispose]();
  });

  describe.each(looksOf([1_360, 390]))('%s, %i px', (theme, width) => {
    it.each([
      ['Bundoc', () => installation.url, 'readDocument'],
      ['BunKMS', () => installation.kms.apiUrl, 'createKey'],
    ])('has the colours and fonts of the console of %s, and fits the window', async (name, url, id) => {
      await using visitor = await browser.visit({ theme, width });
      const { page } = visitor;
      await page.goto(`${url()}/console/`);
      const expected = await page.evaluate<Values>(VARIABLES);
      await page.goto(`${url()}/docs/`);
      await page.locator(`[id$="-${id}"] .opblock-summary-control`).click();
      await page.locator('.responses-table').first().waitFor();
      expect(await page.evaluate<Values>(VARIABLES)).toEqual(expected);
      expect(expected).toMatchObject(await page.evaluate<Values>(USED));
      if (pictures !== undefined)
        await page.screenshot({ path: join(pictures, `docs-${name}-${theme}-${width}.png`), fullPage: true });
      await visitor.expectNoOverflow();
    });
  });
});
