/** The definition of an index. */
export interface IndexDefinition {
  /** By default its fields, joined by `+`. */
  readonly name?: string | undefined;
  /** Paths of members joined by dots, 1 to 4. */
  readonly fields: readonly string[];
  /** No two documents may have the same values in these fields. Documents that lack a field are exempt. */
  readonly unique?: boolean | undefined;
}

/**
 * The definition of a collection (`docs/collections.md`). A new definition replaces the previous one as a
 * whole.
 */
export interface CollectionDefinition {
  readonly indexes?: readonly IndexDefinition[] | undefined;
  /** JSON Schema, draft 2020-12, without regular expressions. */
  readonly schema?: Readonly<Record<string, unknown>> | undefined;
  /** Documents expire `seconds` after the time in `field`, RFC 3339 in UTC. */
  readonly ttl?: { readonly field: string; readonly seconds?: number | undefined } | undefined;
}

/** The state of an index. */
export interface IndexStatus {
  readonly name: string;
  readonly fields: readonly string[];
  readonly unique: boolean;
  /**
   * `building`: queries scan until it is ready. `duplicates`: a unique index that is not enforced, because it
   * found equal values.
   */
  readonly state: 'building' | 'ready' | 'duplicates';
  /** While it is built: documents that are indexed, and all documents. */
  readonly indexed?: number;
  readonly total?: number;
  /** Bytes that it takes: of the database, or of memory. */
  readonly bytes?: number;
  /** Surplus documents of a unique index: all but one of each set with equal values. */
  readonly duplicates?: number;
}

/** The contents and the definition of a collection. */
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

/** A collection after its definition, and how many of its documents the schema would refuse. */
export interface DefinedCollection extends CollectionInfo {
  readonly existing: {
    readonly checked: number;
    readonly failing: number;
    /** With a `ttl`: documents whose field has a value that is no UTC time, so they never expire. */
    readonly invalid_times?: number;
    /** False when the collection has more documents than are checked. */
    readonly complete: boolean;
  };
}

/** The result of a dry run of a schema over some of the documents. */
export interface SchemaCheck {
  readonly checked: number;
  /** Of those, documents that the schema refuses. */
  readonly failing: number;
  /** The first documents that fail, each with its first reasons. */
  readonly failures: readonly {
    readonly id: string;
    readonly errors: readonly { readonly path: string; readonly message: string }[];
  }[];
  /** Ids of documents whose stored bytes do not open. */
  readonly unreadable: readonly string[];
  /** Where to continue; undefined when every document was checked. */
  readonly nextCursor: string | undefined;
}

/** A collection in the list of a project. */
export interface CollectionSummary {
  readonly name: string;
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
  readonly defined: boolean;
}

/** The collection that an answer describes. */
export function collectionOf<C extends CollectionInfo>(text: string, headers: Headers): C {
  const etag = headers.get('etag');
  const rev = etag === null ? undefined : etag.replace(/^W\//, '').replaceAll('"', '');
  return { ...(JSON.parse(text) as C), rev };
}
