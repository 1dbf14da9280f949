import { afterEach, expect } from 'vitest';
import { runningInstallations } from './running-installations.ts';

/** What was given back may be noticed a little later: a response has closed, a stream has ended. */
const NOTICED_WITHIN_MS = 30_000;

afterEach(async () => {
  for (const installation of runningInstallations)
    await expect
      .poll(() => installation.held(), {
        timeout: NOTICED_WITHIN_MS,
        interval: 20,
        message: 'shares that are still held',
      })
      .toEqual({});
});
