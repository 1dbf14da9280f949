import { afterEach, expect } from 'vitest';
import { runningInstallations } from './running-installations.ts';

/** A share may be released a little later, when a response closes or a stream ends. */
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
