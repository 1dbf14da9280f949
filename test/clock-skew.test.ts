import { readFileSync } from 'node:fs';
import { SKEW_WARN_S } from '@bundoc/bundoc/kms/clock-skew';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const HOUR_MS = 3_600_000;

/** A wall clock that is wrong. The `Date` of answers is always that of the machine. */
class WrongClock implements Clock {
  aheadMs = 0;
  now(): number {
    return systemClock.now() + this.aheadMs;
  }
  monotonic(): number {
    return systemClock.monotonic();
  }
}

const DIFFER = 'the clocks of Bundoc and BunKMS differ: that of BunKMS is ';
const NOT_VALID_YET = 'a genuine token is not valid yet';

let clock: WrongClock;
let installation: Installation;
beforeEach(async () => {
  clock = new WrongClock();
  installation = await Installation.start({ clock });
});
afterEach(() => installation[Symbol.asyncDispose]());

const warnings = () =>
  installation.log.text
    .split('\n')
    .filter((line) => line.includes('"level":"warn"'))
    .map((line) => String(JSON.parse(line).msg));
const ready = () => call(installation.url, '/ready');
const skewOf = (scrape: string) => Number(/^bundoc_kms_clock_skew_seconds (\S+)$/m.exec(scrape)?.[1]);

it('the alert of a skew begins where the warnings do', () => {
  const page = readFileSync(new URL('../docs/operations/alerts.md', import.meta.url), 'utf8');
  expect(page).toContain(`| \`abs(bundoc_kms_clock_skew_seconds) > ${SKEW_WARN_S}\` for 2 minutes |`);
});

describe('a Bundoc whose clock is wrong', () => {
  it('has a skew of 0 while the clocks agree', async () => {
    expect(skewOf(await installation.metrics())).toBe(0);
    expect(warnings().filter((msg) => msg.includes('clock'))).toEqual([]);
  });

  it('warns, and shows the skew in its metrics, when it is ahead', async () => {
    clock.aheadMs = 2 * HOUR_MS;
    await expect
      .poll(async () => [await ready(), warnings()][1])
      .toContainEqual(expect.stringContaining(DIFFER));
    expect(warnings().find((msg) => msg.startsWith(DIFFER))).toMatch(/7[12]\d\d s behind Bundoc's/);
    const skew = skewOf(await installation.metrics());
    expect(skew).toBeGreaterThan(-7_210);
    expect(skew).toBeLessThan(-7_190);
  });

  it('stays ready when it is behind, and warns when it refuses a new token', async () => {
    const token = await installation.client(['p']);
    const ask = () => call(installation.url, '/v1/projects/p/collections', { token });
    expect((await ask()).status).not.toBe(401);
    clock.aheadMs = -2 * HOUR_MS;
    for (let n = 0; n < 3; n++) expect((await ask()).status).toBe(401);
    await expect
      .poll(async () => [await ready(), warnings()][1])
      .toContainEqual(expect.stringContaining(DIFFER));
    expect(warnings().find((msg) => msg.startsWith(DIFFER))).toMatch(/7[12]\d\d s ahead of Bundoc's/);
    expect(warnings().filter((msg) => msg.startsWith(NOT_VALID_YET))).toHaveLength(1);
    expect((await ready()).status).toBe(200);
  });
});
