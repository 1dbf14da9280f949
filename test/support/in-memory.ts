import { basename } from 'node:path';
import { expect, inject } from 'vitest';

// A file for `setupFiles`: temporary folders of the tests, and of the processes they start, are in memory.

/**
 * These stay on the disk. They write, sync, kill and install as users do: Bundoc syncs a disk by `syncfs`,
 * and other file systems file by file. The disk itself is tested by unit tests, which are all on it.
 */
const ON_DISK: readonly string[] = [
  'kill-loop.test.ts',
  'npm-start.test.ts',
  'npm-start-ends.test.ts',
  'release.test.ts',
];

const folder = inject('temporaryFolder') as string | undefined;
if (folder !== undefined && !ON_DISK.includes(basename(expect.getState().testPath ?? '')))
  process.env['TMPDIR'] = folder;
