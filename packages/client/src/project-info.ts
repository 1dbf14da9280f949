/** The content of a project, in figures. */
export interface ProjectInfo {
  readonly project: string;
  /** RFC 3339, UTC. */
  readonly created_at: string;
  readonly documents: number;
  /** Collections that hold a document. */
  readonly collections: number;
  /** Sealed bytes of its documents. */
  readonly bytes: number;
  readonly key: {
    /** The key version that new seals use. */
    readonly version: number;
    readonly versions: readonly number[];
    /** Documents that are still sealed under an older version. */
    readonly documents_to_reseal: number;
  };
  /** The state in the answering process before this request, which opens the project. */
  readonly cache: { readonly open: boolean; readonly key_cached: boolean };
}

/** The figures of a project that need no key. */
export interface ProjectSummary {
  /** Absent before the first checkpoint of a project in files that is not open. */
  readonly documents?: number;
  /** Sealed bytes of its documents. */
  readonly bytes?: number;
  readonly key_version?: number;
  /** Opaque. Equal values show that nothing was written or re-sealed in between. */
  readonly last_change?: string;
  /** Whether the process that answers has it open. */
  readonly open: boolean;
  /** Until when that process may use the key that it has. Absent when opening the project fetches the key. */
  readonly key_until?: string;
}

/** A page of the projects that the token is for. */
export interface ProjectPage {
  readonly projects: readonly string[];
  /** By project, if they were requested. */
  readonly summaries: ReadonlyMap<string, ProjectSummary>;
  /** Where the next page begins; undefined when this was the last. */
  readonly nextCursor: string | undefined;
}

/** The result of the deletion of a project. */
export interface DeletedProject {
  readonly project: string;
  readonly deleted_at: string;
  /**
   * BunKMS's receipt for the destruction of its key. Wrapped copies of the key are gone once the KEKs in
   * `kek_ids` are destroyed too.
   */
  readonly key?: {
    readonly id: string;
    readonly name: string;
    readonly destroyed_at: string;
    readonly kek_ids: readonly string[];
    readonly audit: { readonly seq: number; readonly hash: string };
  };
}
