import { afterEach } from 'vitest';
import type { ProjectStore } from '../engine/port/port.ts';

export interface StoreUnderTest {
  readonly store: ProjectStore;
  /** Opens the same storage again, after the first was closed. */
  reopen(): Promise<ProjectStore>;
}

/** Opens stores for the tests of a suite. Those in `open` are closed after each test. */
export function openStores<S extends StoreUnderTest>(make: () => Promise<S>) {
  const open: ProjectStore[] = [];
  const start = async (): Promise<S> => {
    const made = await make();
    open.push(made.store);
    return made;
  };
  afterEach(async () => {
    for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
  });
  return { start, open };
}
