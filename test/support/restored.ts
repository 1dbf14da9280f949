import { afterEach, vi } from 'vitest';

// A file for `setupFiles`: files of tests share a process, and none leaves a spy or a fake clock to the next.
// It runs after what a file itself does after a test.

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});
