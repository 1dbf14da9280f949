// Imported by path, because Vitest resolves imports of a setup file in the build output, which lacks test
// helpers.

import { rmSync } from 'node:fs';
import type { TestProject } from 'vitest/node';
import { LONG } from '../../packages/shared/src/testing/long.ts';
import { memoryFolder } from '../../packages/shared/src/testing/memory-folder.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Where the tests of a project make their temporary folders, unless they are about a disk. */
    temporaryFolder: string;
  }
}

/** Gives each project a folder in memory, where there is room. `npm run test:long` is on the disk. */
export default function setup(project: TestProject): (() => void) | undefined {
  const folder = LONG ? undefined : memoryFolder();
  if (folder === undefined) return undefined;
  project.provide('temporaryFolder', folder);
  // Services that are just ending may still write.
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 20 });
  process.once('exit', remove);
  return () => {
    process.off('exit', remove);
    remove();
  };
}
