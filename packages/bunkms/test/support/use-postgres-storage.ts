import { afterAll, beforeAll } from 'vitest';
import { PostgresDatabases } from './postgres.ts';
import { useStorage } from './storage.ts';

/** Call it in a `describe`: the services of its tests have their stores in the databases of one server. */
export function usePostgresStorage(
  onStarted: (databases: PostgresDatabases) => void = () => undefined,
): void {
  const stack = new AsyncDisposableStack();
  beforeAll(async () => {
    const databases = stack.use(await PostgresDatabases.start());
    useStorage(databases);
    onStarted(databases);
  });
  afterAll(async () => {
    useStorage(undefined);
    await stack.disposeAsync();
  });
}
