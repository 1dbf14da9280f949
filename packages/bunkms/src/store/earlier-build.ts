/**
 * The error of a start on a store of a build whose keys name no holder, or whose chain does not authenticate
 * tokens. @param found how that shows.
 */
export function madeByEarlierBuild(found: string): Error {
  return new Error(
    `the store was made by an earlier build (${found}): export the documents with that build, start with an empty store, and import them`,
  );
}
