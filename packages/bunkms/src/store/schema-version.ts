/** The number of the schema of both stores. A release that changes the schema raises it. */
export const SCHEMA_VERSION = 11;

/** @throws Error for a store with another schema. */
export function requireSchema(version: number): void {
  if (version === SCHEMA_VERSION) return;
  throw new Error(
    `the store has schema ${version}, and this release needs ${SCHEMA_VERSION}: use the release that wrote it, or export the documents with that release (bundoc export), start with an empty store, and import them`,
  );
}
