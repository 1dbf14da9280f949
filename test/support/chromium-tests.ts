import { describe } from 'vitest';
import { hasChromium } from './browser.ts';

if (!hasChromium && process.env['REQUIRE_CHROMIUM'] === '1')
  throw new Error('REQUIRE_CHROMIUM=1, but /usr/bin/chromium does not exist');

/**
 * Skips the tests and marks their name when Chromium is not installed. `REQUIRE_CHROMIUM=1` turns that into a
 * failure.
 */
export function describeWithChromium(name: string, tests: () => void): void {
  if (hasChromium) describe(name, tests);
  else describe.skip(`${name} [skipped: Chromium is not installed]`, tests);
}
