import { randomInt } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { LONG } from '@bundoc/shared/testing/long';
import { pathOf } from '@bundoc/shared/testing/programs';
import { sampleOf } from '@bundoc/shared/testing/sample';
import axe from 'axe-core';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { expect } from 'vitest';

/** Records every violation of the page's content security policy from the start. */
const WATCH = `
  globalThis.__breaches = [];
  document.addEventListener('securitypolicyviolation', (event) => {
    globalThis.__breaches.push(event.effectiveDirective + ' ' + event.blockedURI + ' ' + event.sample);
  });
`;

// Code for the page is text, because the tests do not have the types of a page.
const HAS_AXE = "typeof axe !== 'undefined'";
/** Without what axe says of elements that pass, and without a selector for each element. */
const RUN_AXE = `axe.run({ resultTypes: ['violations'], selectors: false }).then(({ violations }) =>
  violations.map(({ id, nodes }) =>
    id + ': ' + nodes.map(({ html, failureSummary }) => html + ' ' + failureSummary).join('; ')))`;
const WIDTHS = `({
  scroll: document.documentElement.scrollWidth,
  client: document.documentElement.clientWidth,
})`;
const TRACES = `(async () => ({
  breaches: globalThis.__breaches,
  stored: [
    ...Object.keys(localStorage).filter((name) => name !== 'theme'),
    ...Object.keys(sessionStorage),
    ...(await indexedDB.databases()).map(({ name }) => name),
    ...(await caches.keys()),
    ...(document.cookie === '' ? [] : [document.cookie]),
  ],
}))()`;

/** The focused element, even in a shadow root. */
const DEEP_FOCUS = `let at = document.activeElement;
  while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;`;
const FOCUSED = `(() => { ${DEEP_FOCUS}
  return (at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent).trim().slice(0, 80);
})()`;
/** Whether the focused element, or the frame around an editor, has an outline. */
const IS_FOCUS_SHOWN = `(() => { ${DEEP_FOCUS}
  const host = at.getRootNode().host ?? at;
  return [at, host].some((one) => getComputedStyle(one).outlineStyle !== 'none' ||
    getComputedStyle(one).boxShadow !== 'none');
})()`;
/** The most Tab stops on the way to an element. */
const STOPS_MAX = 120;

/**
 * For `addInitScript`: a file in the browser's private file system replaces the one that the user would
 * choose. The page writes it in the same way.
 */
export const OWN_FILES = `
  globalThis.showSaveFilePicker = async ({ suggestedName }) =>
    (await navigator.storage.getDirectory()).getFileHandle(suggestedName, { create: true });
`;

/** Reads a file that the page has written through {@link OWN_FILES}. */
export function writtenFile(page: Page, name: string): Promise<string> {
  return page.evaluate<string>(
    `navigator.storage.getDirectory()
      .then((folder) => folder.getFileHandle(${JSON.stringify(name)}))
      .then((file) => file.getFile())
      .then((file) => file.text())`,
  );
}

/** The folder for pictures of the views, if they are wanted. */
const pictures = process.env['CONSOLE_PICTURES'];
/** `1` replaces the pictures of the documentation. */
const isForDocs = process.env['CONSOLE_DOCS_PICTURES'] === '1';
const DOCS_PICTURES = join(import.meta.dirname, '..', '..', 'docs', 'images');

export type Theme = 'light' | 'dark';
/** `LOOK_SEED` repeats the look that the titles of tests name. */
const SEED = Number(process.env['LOOK_SEED'] ?? randomInt(1, 2_147_483_646));

/**
 * The themes and widths in which every view is tested: each theme in each width with LONG_TESTS=1, and for
 * pictures. Otherwise one of them, which is drawn.
 */
export function looksOf(widths: readonly [wide: number, narrow: number]): (readonly [Theme, number])[] {
  const all = (['light', 'dark'] as const).flatMap((theme) => widths.map((width) => [theme, width] as const));
  return LONG || pictures !== undefined ? all : sampleOf(all, 1, SEED);
}
export const LOOKS = looksOf([1_440, 360]);

export interface VisitorOptions {
  readonly theme?: Theme;
  readonly width?: number;
  readonly height?: number;
}

/** One browser for all tests of a file. */
export class TestBrowser implements AsyncDisposable {
  readonly #browser: Browser;

  private constructor(browser: Browser) {
    this.#browser = browser;
  }

  static async launch(): Promise<TestBrowser> {
    return new TestBrowser(
      await chromium.launch({
        executablePath: String(pathOf('chromium')),
        args: [
          '--no-sandbox',
          '--disable-background-networking',
          '--disable-component-update',
          '--disable-sync',
          '--no-first-run',
        ],
      }),
    );
  }

  /** A visitor with an empty browser context. */
  async visit(options: VisitorOptions = {}): Promise<Visitor> {
    const { theme = 'light', width = 1_440, height = 900 } = options;
    const context = await this.#browser.newContext({
      viewport: { width, height },
      colorScheme: theme,
      reducedMotion: 'reduce',
      acceptDownloads: true,
    });
    await context.addInitScript({ content: WATCH });
    return new Visitor(context, await context.newPage(), `${theme}-${width}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
  }
}

/** A browser context that records violations and errors of its pages. */
export class Visitor implements AsyncDisposable {
  readonly page: Page;
  readonly #context: BrowserContext;
  readonly #faults: string[] = [];
  readonly #urls: string[] = [];
  readonly #secrets: string[] = [];
  readonly #look: string;

  /** @param look theme and width, for the names of pictures. */
  constructor(context: BrowserContext, page: Page, look: string) {
    this.#context = context;
    this.page = page;
    this.#look = look;
    page.setDefaultTimeout(Number(process.env['CONSOLE_TIMEOUT_MS'] ?? 60_000));
    page.on('pageerror', (error) => this.#faults.push(`uncaught: ${error.message}`));
    page.on('dialog', (dialog) => {
      this.#faults.push(`a dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on('request', (request) => this.#urls.push(request.url()));
  }

  /** Opens a console and pastes a token. */
  async signIn(url: string, token: string): Promise<void> {
    this.#secrets.push(token);
    await this.page.goto(`${url}/console/`);
    await this.paste(token, 'Sign in');
  }

  async paste(token: string, action: 'Sign in' | 'Continue'): Promise<void> {
    this.#secrets.push(token);
    await this.page.getByLabel('Token', { exact: true }).fill(token);
    await this.page.getByRole('button', { name: action }).click();
  }

  /** Opens a view without a reload, which would lose the token. */
  async open(path: string): Promise<void> {
    await this.page.evaluate(
      `history.pushState(null, '', ${JSON.stringify(path)}); dispatchEvent(new PopStateEvent('popstate'))`,
    );
  }

  /** Replaces the text of an editor. */
  async replaceText(label: string, next: string): Promise<void> {
    await this.editor(label).click();
    await this.page.keyboard.press('ControlOrMeta+a');
    await this.page.keyboard.insertText(next);
  }

  /** The accessible name of the focused element. */
  async focused(): Promise<string> {
    return this.page.evaluate<string>(FOCUSED);
  }

  /**
   * As {@link focused}; empty when the focus is not in the page. @throws AssertionError for a focus outside
   * `selector`.
   */
  async focusedWithin(selector: string): Promise<string> {
    const isWithin = await this.page.evaluate<boolean>(
      `document.activeElement === document.body || document.activeElement.closest(${JSON.stringify(selector)}) !== null`,
    );
    expect(isWithin).toBe(true);
    return (await this.page.evaluate<boolean>('document.activeElement === document.body'))
      ? ''
      : this.focused();
  }

  /** Moves to the next element of that name with the Tab key. Each stop on the way must show its focus. */
  async tabTo(name: string): Promise<void> {
    const passed: string[] = [];
    while (passed.length < STOPS_MAX) {
      await this.page.keyboard.press('Tab');
      const stop = await this.focused();
      expect([stop, await this.page.evaluate<boolean>(IS_FOCUS_SHOWN)]).toEqual([stop, true]);
      if (stop === name) return;
      passed.push(stop);
    }
    throw new Error(`no Tab leads to ${name}: ${passed.join(' | ')}`);
  }

  /** The editor with that name. */
  editor(label: string) {
    return this.page.getByLabel(label, { exact: true });
  }

  /** @throws AssertionError when axe finds a violation in the current page. */
  async expectAccessible(): Promise<void> {
    // Half a megabyte of script, which each page that opens would otherwise compile.
    if (!(await this.page.evaluate<boolean>(HAS_AXE))) await this.page.evaluate(axe.source);
    const violations = await this.page.evaluate<string[]>(RUN_AXE);
    expect(violations).toEqual([]);
  }

  /** @throws AssertionError when the page is wider than its window. */
  async expectNoOverflow(): Promise<void> {
    const { scroll, client } = await this.page.evaluate<{ scroll: number; client: number }>(WIDTHS);
    expect(scroll).toBeLessThanOrEqual(client);
  }

  /**
   * Takes pictures of the current page when they are wanted.
   *
   * @param docs name of its picture in the documentation.
   * @throws AssertionError when axe finds a violation, or the page is wider than its window.
   */
  async look(name: string, docs?: string): Promise<void> {
    await this.expectAccessible();
    await this.expectNoOverflow();
    if (pictures !== undefined) {
      mkdirSync(pictures, { recursive: true });
      await this.page.screenshot({ path: join(pictures, `${name}-${this.#look}.png`), fullPage: true });
    }
    if (isForDocs && docs !== undefined && this.#look === 'light-1440')
      await this.page.screenshot({ path: join(DOCS_PICTURES, `${docs}.png`) });
  }

  /** @throws AssertionError for a policy violation, an error, or a leaked token. */
  async expectClean(): Promise<void> {
    const { breaches, stored } = await this.page.evaluate<{ breaches: string[]; stored: string[] }>(TRACES);
    expect(breaches).toEqual([]);
    expect(stored).toEqual([]);
    expect(await this.#context.cookies()).toEqual([]);
    expect(this.#faults).toEqual([]);
    for (const secret of this.#secrets) expect(this.#urls.filter((url) => url.includes(secret))).toEqual([]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.expectClean();
    } finally {
      await this.#context.close();
    }
  }
}
