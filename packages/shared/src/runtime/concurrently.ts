/** Runs a task for each item, a limited number at a time. Rejects with the first failure. */
export async function forEachConcurrently<T>(
  items: Iterable<T>,
  atOnce: number,
  task: (item: T) => Promise<void>,
): Promise<void> {
  const left = Iterator.from(items);
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const item of left) await task(item);
    }),
  );
}
