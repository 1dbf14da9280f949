/** Work that goes on beside a test: should it fail, that is thrown where it is awaited, and is not an error of the whole run before. */
export function startInBackground<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}
