import { describe } from 'vitest';
import { hasChromium } from './browser.ts';

if (!hasChromium && process.env['REQUIRE_CHROMIUM'] === '1')
  throw new Error('REQUIRE_CHROMIUM=1, and there is no /usr/bin/chromium');

/**
 * Skips, and says so in its name, where Chromium is not installed; `REQUIRE_CHROMIUM=1` makes that a
 * failure.
 */
export function describeWithChromium(name: string, tests: () => void): void {
  if (hasChromium) describe(name, tests);
  else describe.skip(`${name} [skipped: Chromium is not installed]`, tests);
}
