import { AppError } from '@bundoc/shared/contract/app-error';
import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { KeyCache } from '../../../crypto/key-cache.ts';
import type { LeasedKey } from '../../../kms/port.ts';
import { projectLost } from '../../lost-projects.ts';
import { judgeMoveMark, mayBeRemoved, type SettleMove } from '../../moves/judge-move-mark.ts';
import { MOVE_MARK_BEGINS } from '../../moves/move-mark.ts';
import { loggable, type OnSetAside } from '../../moves/set-aside.ts';
import { OutcomeUnknown } from '../../port/errors.ts';
import { positionAt } from '../../port/positions.ts';
import { formatDeletionMark, projectDestroyed, readDeletionMark } from '../../projects/deletion-mark.ts';
import { lastChangeOf } from '../../projects/last-change.ts';
import {
  formatProjectFile,
  newProjectFile,
  openCipher,
  parseProjectFile,
  type TakenOver,
  withNewVersion,
  withWrappings,
} from '../../projects/project-file.ts';
import { keysOfFile, mintOrAdopt, requireNotDestroyed } from '../../projects/project-keys.ts';
import type { DatedHead, OpenedProject, ProjectExtent, Projects } from '../../projects/projects.ts';
import { Gather } from '../commit/gather.ts';
import type { Database, Statement, Transaction } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';
import { removeRows, unfenceRows } from '../rows/fence.ts';
import { type FileRow, readFileRow, readFileRows, removeMarker, replaceFileRow } from '../rows/file-row.ts';
import { makeProject, raiseKeyVersion } from '../rows/project-rows.ts';

/** True for a row of `bundoc.projects` with a project, rather than only a mark. */
export const IS_PROJECT = `file IS NOT NULL AND NOT starts_with(coalesce(marker, ''), '${MOVE_MARK_BEGINS}')`;
const NAMES: Statement = {
  name: 'bundoc-project-names-6',
  text: `SELECT project FROM bundoc.projects WHERE project > $1 AND project >= $4 AND starts_with(project, $4)
         AND ($3::text[] IS NULL OR project = ANY ($3)) AND ${IS_PROJECT} ORDER BY project LIMIT $2`,
};
const EXTENTS: Statement = {
  name: 'bundoc-project-extents-2',
  text: `SELECT h.project, h.key_version, coalesce(sum(c.documents), 0)::bigint, coalesce(sum(c.bytes), 0)::bigint, h.seq,
           (SELECT string_agg(v.version || ':' || v.documents, ',' ORDER BY v.version)
            FROM bundoc.key_versions v WHERE v.project = h.project)
         FROM bundoc.heads h LEFT JOIN bundoc.collections c USING (project)
         WHERE h.project = ANY ($1::text[]) GROUP BY h.project`,
};

/**
 * Projects whose rows one statement reads when they are opened, and the number of such statements at a time.
 */
const OPENINGS_OF_STATEMENT_MAX = 32;
const OPENING_STATEMENTS_MAX = 2;
/** Maximum attempts. When nodes change the same file at once, each attempt lets at least one succeed. */
const TRIES_MAX = 10;

export interface PostgresProjectsOptions {
  readonly database: Database;
  readonly keys: KeyCache;
  readonly clock: Clock;
  /** The identity of this storage. */
  readonly storage: TakenOver;
  readonly onSetAside?: OnSetAside;
  /** Finishes an interrupted move out of this storage. */
  readonly settle: SettleMove;
}
type RowsPlace = Pick<PostgresProjectsOptions, 'database' | 'clock'>;

/**
 * Finds and creates projects in the database, concurrently with other nodes. The first inserted row is the
 * project's, with its name key. A change only replaces exactly the text that it was based on.
 */
export class PostgresProjects implements Projects {
  readonly #options: PostgresProjectsOptions;
  readonly #openings: Gather<string, FileRow>;

  constructor(options: PostgresProjectsOptions) {
    this.#options = options;
    this.#openings = new Gather({
      ask: (projects) => readFileRows(options.database, projects),
      statementsMax: OPENING_STATEMENTS_MAX,
      questionsMax: OPENINGS_OF_STATEMENT_MAX,
    });
  }

  async open(project: string, beforeOutside?: () => void): Promise<OpenedProject | undefined> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const { text, head } = await this.#read(project);
      if (text === undefined) return undefined;
      const file = parseProjectFile(project, Buffer.from(text));
      const keys = await keysOfFile(this.#options.keys, project, file, beforeOutside);
      const [current] = keys;
      const isKnown = file.versions.some(({ version }) => version === current.version);
      // Proves that the key belongs to the project before anything about it is written.
      const cipher = isKnown ? openCipher(file, keys) : undefined;
      const rewrapped = withWrappings(file, keys);
      if (cipher !== undefined && rewrapped === undefined) return { file, keys, cipher, head };
      const changed =
        cipher === undefined
          ? withNewVersion(rewrapped ?? file, keys, this.#options.storage)
          : (rewrapped ?? file);
      if (await this.#replace(text, changed, current.version))
        return { file: changed, keys, cipher: cipher ?? openCipher(changed, keys), head };
    }
    throw new AppError('storage_unavailable', { retryAfterS: 1 });
  }

  /**
   * Of concurrent creations, the first inserted row wins. The other nodes have adopted the same key, and use
   * that row's name key.
   */
  async openOrCreate(project: string, beforeOutside?: () => void): Promise<OpenedProject> {
    const existing = await this.open(project, beforeOutside);
    if (existing !== undefined) return existing;
    const { keys, clock, storage, database } = this.#options;
    const made = await mintOrAdopt(keys, project);
    const file = newProjectFile(project, made, new Date(clock.now()), storage);
    // A retry after a broken connection finds the row of the first attempt.
    const asOfMs = clock.monotonic();
    const found = await retryUnavailable(clock, () =>
      makeProject(database, project, textOf(file), made.key.version, positionAt(storage.takenOverMs)),
    );
    const head = found && { ...found, asOfMs };
    if (head !== undefined) return { file, keys: [made.key], cipher: openCipher(file, [made.key]), head };
    const opened = await this.open(project);
    if (opened === undefined) throw new AppError('storage_unavailable', { retryAfterS: 1 });
    return opened;
  }

  async names(
    after: string,
    limit: number,
    only?: readonly string[],
    prefix = '',
  ): Promise<readonly string[]> {
    const { database, clock } = this.#options;
    const rows = await retryUnavailable(clock, () =>
      database.query(NAMES, [after, limit, only ?? null, prefix]),
    );
    return rows.map((row) => (row as unknown as [string])[0]);
  }

  async extents(projects: readonly string[]): Promise<ReadonlyMap<string, ProjectExtent>> {
    const { database, clock } = this.#options;
    const rows = await retryUnavailable(clock, () => database.query(EXTENTS, [projects]));
    return new Map(
      (rows as unknown as [string, number, number, number, number, string | null][]).map(
        ([project, keyVersion, documents, bytes, seq, versions]) => {
          // Re-sealed documents change only the counts of the versions.
          const lastChange = lastChangeOf(seq, keyVersion, versions ?? '');
          return [project, { documents, bytes, keyVersion, lastChange }];
        },
      ),
    );
  }

  async keepWrappings(project: string, file: ProjectFile, keys: readonly LeasedKey[]): Promise<ProjectFile> {
    if (withWrappings(file, keys) === undefined) return file;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const { text } = await this.#read(project);
      if (text === undefined) break;
      const present = parseProjectFile(project, Buffer.from(text));
      const changed = withWrappings(present, keys);
      if (changed === undefined) return present;
      if (await this.#replace(text, changed, undefined)) return changed;
    }
    throw new AppError('storage_unavailable', { retryAfterS: 1 });
  }

  async exists(project: string): Promise<boolean> {
    const row = await readFileRowWithRetries(this.#options, project);
    if (row.marker?.startsWith(MOVE_MARK_BEGINS)) {
      if (await mayBeRemoved(project, row.marker, row.text !== undefined, this.#options.keys)) return true;
      await this.#requireHere(project, row.marker, row.text);
    }
    const hasContent = row.text !== undefined || row.head !== undefined;
    if (!hasContent && row.isLost) throw projectLost();
    return hasContent;
  }

  async deletionOf(project: string): Promise<DeletionMark | undefined> {
    const { marker } = await readFileRowWithRetries(this.#options, project);
    return marker === undefined ? undefined : readDeletionMark(project, marker);
  }

  /** The head is removed first: without one, no node commits to the project. */
  async remove(project: string, mark: DeletionMark): Promise<void> {
    const { database, clock } = this.#options;
    const transact: Database['transaction'] = (begin, action) =>
      retryUnavailable(clock, () => database.transaction(begin, action));
    try {
      await removeRows((action) => transact('', action), project, formatDeletionMark(mark));
    } catch (error) {
      if (!(error instanceof OutcomeUnknown)) throw error;
      throw new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
    }
  }

  /**
   * @throws AppError `project_damaged` for content without a file, and for a lost project;
   *   `project_destroyed` as {@link requireNotDestroyed}.
   */
  async #read(project: string): Promise<Pick<FileRow, 'text'> & { readonly head: DatedHead | undefined }> {
    const { clock } = this.#options;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const asOfMs = clock.monotonic();
      const { text, marker, head, isLost } = await retryUnavailable(clock, () => this.#openings.ask(project));
      if (marker?.startsWith(MOVE_MARK_BEGINS)) {
        await this.#requireHere(project, marker, text);
        continue;
      }
      if (marker !== undefined) await this.#requireNotDeleted(project, marker);
      if (text === undefined && head !== undefined)
        throw new AppError('project_damaged', { cause: new Error('rows without a project file') });
      if (text === undefined && isLost) throw projectLost();
      return { text, head: head && { ...head, asOfMs } };
    }
    // The mark stays; the loop ends so that BunKMS is not asked forever.
    throw new AppError('storage_unavailable', { retryAfterS: 1 });
  }

  /**
   * @throws AppError `project_destroyed` when the key service confirms the mark; any other mark is set aside.
   */
  async #requireNotDeleted(project: string, marker: string): Promise<void> {
    const { database, clock, keys, onSetAside } = this.#options;
    await requireNotDestroyed(keys, project);
    const isSetAside = await retryUnavailable(clock, () => removeMarker(database, project, marker));
    if (isSetAside) onSetAside?.({ project, text: loggable(marker) });
  }

  /**
   * Removes the mark of a finished move, and sets a forged one aside. @throws AppError as {@link
   * judgeMoveMark}.
   */
  async #requireHere(project: string, marker: string, text: string | undefined): Promise<void> {
    const { database, clock, onSetAside } = this.#options;
    const verdict = await judgeMoveMark(project, marker, text !== undefined, this.#options);
    const isChanged = await retryUnavailable(clock, () => unfenceRows(database, project, marker));
    if (isChanged && verdict === 'forged') onSetAside?.({ project, text: loggable(marker) });
  }

  /**
   * @returns false when another node changed the file first, or the outcome is unknown; the caller reads it
   *   again.
   */
  async #replace(text: string, file: ProjectFile, keyVersion: number | undefined): Promise<boolean> {
    const { database, clock } = this.#options;
    const replace = async (transaction: Transaction) => {
      if (!(await replaceFileRow(transaction, file.project, textOf(file), text))) return undefined;
      if (keyVersion !== undefined) await raiseKeyVersion(transaction, file.project, keyVersion);
      return true;
    };
    try {
      return (await retryUnavailable(clock, () => database.transaction('', replace))) === true;
    } catch (error) {
      if (error instanceof OutcomeUnknown) return false;
      throw error;
    }
  }
}

/**
 * The error for an open project that has lost its head: `project_destroyed`, or `project_moving`. After
 * `project_moving`, the next opening learns from BunKMS where the project is.
 *
 * @throws AppError of the database.
 */
export async function whyGone(place: RowsPlace, project: string): Promise<AppError> {
  const { text, marker } = await readFileRowWithRetries(place, project);
  if (marker?.startsWith(MOVE_MARK_BEGINS)) return new AppError('project_moving', { retryAfterS: 1 });
  if (text === undefined)
    return marker === undefined ? new AppError('project_not_found') : projectDestroyed();
  // The project has come back in the meantime.
  return new AppError('storage_unavailable', { retryAfterS: 1 });
}

function readFileRowWithRetries({ database, clock }: RowsPlace, project: string): Promise<FileRow> {
  return retryUnavailable(clock, () => readFileRow(database, project));
}

function textOf(file: ProjectFile): string {
  return formatProjectFile(file).toString();
}
