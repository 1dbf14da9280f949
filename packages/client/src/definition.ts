/** An index, as it is asked for. */
export interface IndexDefinition {
  /** Its fields joined by `+` when absent. */
  readonly name?: string | undefined;
  /** Paths of names joined by dots, 1 to 4. */
  readonly fields: readonly string[];
  /** No two documents have the same values in these fields, unless one lacks a field. */
  readonly unique?: boolean | undefined;
  /**
   * On PostgreSQL: equal values are found by tokens, which stand in the database. Unique ones are in any
   * case; in files it means nothing.
   */
  readonly blind?: boolean | undefined;
}

/**
 * What a collection is defined to be (`docs/collections.md`). A definition replaces the whole one before it.
 */
export interface CollectionDefinition {
  readonly indexes?: readonly IndexDefinition[] | undefined;
  /** JSON Schema, draft 2020-12, without regular expressions. */
  readonly schema?: Readonly<Record<string, unknown>> | undefined;
  /** Documents expire `seconds` after the time in `field`, RFC 3339 in UTC. */
  readonly ttl?: { readonly field: string; readonly seconds?: number | undefined } | undefined;
}

/** An index as it is. */
export interface IndexStatus {
  readonly name: string;
  readonly fields: readonly string[];
  readonly unique: boolean;
  /** It goes by tokens in the database. */
  readonly blind?: boolean;
  /**
   * `none`: the storage has none of the kind, and its queries scan. `duplicates`: a unique index that keeps
   * nothing apart, for there were some.
   */
  readonly state: 'building' | 'ready' | 'duplicates' | 'none';
  /** While it is built: documents that are in it, and that there are. */
  readonly indexed?: number;
  readonly total?: number;
  /** Documents of a unique index too many: all but one of each that have equal values. */
  readonly duplicates?: number;
}

/** What a collection holds and is defined to be. */
export interface CollectionInfo {
  readonly name: string;
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
  readonly indexes: readonly IndexStatus[];
  readonly schema?: Readonly<Record<string, unknown>>;
  readonly ttl?: { readonly field: string; readonly seconds: number };
  /** The revision of the definition, for `ifMatch`; undefined when the collection is not defined. */
  readonly rev: string | undefined;
}

/** A collection that was defined, and how many of the documents that it held would be refused now. */
export interface DefinedCollection extends CollectionInfo {
  readonly existing: {
    readonly checked: number;
    readonly failing: number;
    /** False when there were more than are checked. */
    readonly complete: boolean;
  };
}

/** What a dry run of a schema has found in some of the documents. */
export interface SchemaCheck {
  readonly checked: number;
  /** Of those, documents that a write would be refused for. */
  readonly failing: number;
  /** The first of those that fail, with the first reasons. */
  readonly failures: readonly {
    readonly id: string;
    readonly errors: readonly { readonly path: string; readonly message: string }[];
  }[];
  /** Ids of documents whose stored bytes do not open. */
  readonly unreadable: readonly string[];
  /** Where to continue; undefined when every document was looked at. */
  readonly nextCursor: string | undefined;
}

/** A collection in the list of a project's. */
export interface CollectionSummary {
  readonly name: string;
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
  readonly defined: boolean;
}

/** The collection that an answer tells of. */
export function collectionOf<C extends CollectionInfo>(text: string, headers: Headers): C {
  const etag = headers.get('etag');
  const rev = etag === null ? undefined : etag.replace(/^W\//, '').replaceAll('"', '');
  return { ...(JSON.parse(text) as C), rev };
}
