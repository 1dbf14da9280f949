/**
 * The error for a store of an earlier build, whose keys have no holder or whose chain does not authenticate
 * tokens. @param found the evidence.
 */
export function earlierBuildError(found: string): Error {
  return new Error(
    `the store was made by an earlier build (${found}): export the documents with that build, start with an empty store, and import them`,
  );
}
