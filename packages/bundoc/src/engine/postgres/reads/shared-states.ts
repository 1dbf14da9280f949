import { definitionsState, NO_DEFINITIONS } from '../../port/definitions-state.ts';
import type { FoundHead } from '../../projects/projects.ts';
import type { Queryable, Statement } from '../database/database.ts';

/** Longer than any revision. */
const REV_BYTES_MAX = 64;
/**
 * For projects whose head has changed or is gone: the head, and a digest of the revisions of their
 * definitions.
 */
const CHANGED: Statement = {
  name: 'bundoc-changed-states-1',
  text: `
SELECT wanted.place, head.seq, head.index_version, d.digest
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[]) WITH ORDINALITY AS wanted (project, seq, index_version, token, place)
LEFT JOIN LATERAL (SELECT seq, index_version FROM bundoc.heads WHERE heads.project = wanted.project LIMIT 1) AS head ON true
LEFT JOIN LATERAL (
  SELECT sha256(coalesce(string_agg(substr(rev, 1, ${REV_BYTES_MAX}), ''::bytea ORDER BY rev), ''::bytea)) AS digest FROM bundoc.documents
  WHERE documents.project = wanted.project AND documents.collection = wanted.token AND deleted_ms = 0
) AS d ON head.seq IS NOT NULL
WHERE head.seq IS DISTINCT FROM wanted.seq OR head.index_version IS DISTINCT FROM wanted.index_version`,
};
/** The position of a project whose head was not read yet. */
const UNKNOWN = -1;

type ChangedRow = readonly [
  place: number,
  seq: number | null,
  indexVersion: number | null,
  digest: Buffer | null,
];

/** The known state of an open project's definitions. */
export interface KnownState {
  readonly project: string;
  /** The token of the collection of definitions. */
  readonly token: Buffer;
  seq: number;
  indexVersion: number;
  /** As {@link definitionsState}; undefined while unknown. */
  text: string | undefined;
}

/** The states of all open projects' definitions. One statement returns those that have changed. */
export class SharedStates {
  readonly #database: Queryable;
  readonly #states = new Map<string, KnownState>();

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** @param head the head from before a read that found no definitions; undefined otherwise. */
  add(project: string, token: Buffer, head: FoundHead | undefined): KnownState {
    const { seq, indexVersion } = head ?? { seq: UNKNOWN, indexVersion: UNKNOWN };
    const text = head && definitionsState(indexVersion, NO_DEFINITIONS);
    const state: KnownState = { project, token, seq, indexVersion, text };
    this.#states.set(project, state);
    return state;
  }

  delete(state: KnownState): void {
    if (this.#states.get(state.project) === state) this.#states.delete(state.project);
  }

  /**
   * The states of the open projects that still exist.
   *
   * @throws AppError of the database.
   */
  async of(projects: readonly string[]): Promise<ReadonlyMap<string, string>> {
    const states = projects.flatMap((project) => this.#states.get(project) ?? []);
    const rows = await this.#database.query(CHANGED, [
      states.map(({ project }) => project),
      states.map(({ seq }) => seq),
      states.map(({ indexVersion }) => indexVersion),
      states.map(({ token }) => token),
    ]);
    for (const row of rows) {
      const [place, seq, indexVersion, digest] = row as unknown as ChangedRow;
      const state = states[place - 1];
      if (state === undefined) continue;
      state.seq = seq ?? UNKNOWN;
      state.indexVersion = indexVersion ?? UNKNOWN;
      state.text = digest ? definitionsState(state.indexVersion, digest.toString('hex')) : undefined;
    }
    return new Map(
      states.flatMap(({ project, text }) => (text === undefined ? [] : [[project, text] as const])),
    );
  }
}
