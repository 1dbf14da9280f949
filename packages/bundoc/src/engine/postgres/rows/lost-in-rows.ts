import type { Clock } from '@bundoc/shared/runtime/clock';
import { LOST_MAX, type LostProjects } from '../../lost-projects.ts';
import type { Database, Queryable, Statement } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';

/** An absent project has no row with a file or a mark, and no rows of content. */
const IS_ABSENT = `NOT EXISTS (SELECT FROM bundoc.projects AS p WHERE p.project = one.project)
  AND NOT EXISTS (SELECT FROM bundoc.heads AS h WHERE h.project = one.project)`;
const ABSENT: Statement = {
  name: 'bundoc-absent-projects-1',
  text: `SELECT one.project FROM unnest($1::text[]) AS one (project) WHERE ${IS_ABSENT}`,
};
const MARK: Statement = {
  name: 'bundoc-mark-lost-1',
  text: 'INSERT INTO bundoc.lost_projects (project) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING',
};
/** Bounded, because somebody who can write to the database can add any number of rows. */
const LIST: Statement = {
  name: 'bundoc-lost-projects-1',
  text: `SELECT one.project FROM bundoc.lost_projects AS one WHERE ${IS_ABSENT} ORDER BY one.project LIMIT ${LOST_MAX}`,
};
const COUNT: Statement = {
  name: 'bundoc-count-lost-1',
  text: `SELECT count(*) FROM (SELECT FROM bundoc.lost_projects AS one WHERE ${IS_ABSENT} LIMIT ${LOST_MAX}) AS counted`,
};
const ACCEPT: Statement = {
  name: 'bundoc-accept-lost-1',
  text: 'DELETE FROM bundoc.lost_projects WHERE project = ANY ($1::text[])',
};
/** Ids in one statement. */
const IDS_AT_ONCE = 1_000;

/** The lost projects of a database that several nodes share. */
export class LostInRows implements LostProjects {
  readonly #database: Pick<Database, 'query'>;
  readonly #clock: Clock;
  count = 0;

  constructor(database: Pick<Database, 'query'>, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  /** Counts the marks again: other nodes and commands change them. */
  async refresh(): Promise<void> {
    const [row] = await this.#query(COUNT, []);
    this.count = Number(row?.[0]);
  }

  async absent(projects: readonly string[]): Promise<readonly string[]> {
    return (await this.#query(ABSENT, [projects])).map(([project]) => String(project));
  }

  async mark(projects: readonly string[]): Promise<void> {
    for (let at = 0; at < projects.length; at += IDS_AT_ONCE)
      await this.#query(MARK, [projects.slice(at, at + IDS_AT_ONCE)]);
    await this.refresh();
  }

  async list(): Promise<readonly string[]> {
    return (await this.#query(LIST, [])).map(([project]) => String(project));
  }

  async accept(projects: readonly string[]): Promise<void> {
    for (let at = 0; at < projects.length; at += IDS_AT_ONCE)
      await this.#query(ACCEPT, [projects.slice(at, at + IDS_AT_ONCE)]);
    await this.refresh();
  }

  #query(statement: Statement, values: readonly unknown[]) {
    return retryUnavailable(this.#clock, () => this.#database.query(statement, values));
  }
}

/** A project that arrives ends its mark, in the same transaction. */
export async function endMark(queryable: Queryable, project: string): Promise<void> {
  await queryable.query(ACCEPT, [[project]]);
}
