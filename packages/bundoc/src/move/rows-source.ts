import { AppError, hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import { type ProjectInRows, readProjectRow } from '../project/project-in-rows.ts';
import type { Position } from '../storage/port.ts';
import { OutcomeUnknown, type Queryable, type Statement } from '../storage/postgres/database.ts';
import { fenceRows, unfenceRows } from '../storage/postgres/fence.ts';
import { leaveMarker, readFileRow } from '../storage/postgres/file-row.ts';
import { deleteContentRows, deleteHead, lockOf } from '../storage/postgres/project-rows.ts';
import { VersionUnknown } from '../storage/postgres/row-cipher.ts';
import { restOfRows } from '../storage/postgres/rows-rest.ts';
import { type FencedSource, MoveFailed, type MoveSource, type ReadSealedChanges } from './move-project.ts';
import { pagesOfRows } from './pages-of-rows.ts';

/** The last part of a copy takes its time; who writes meanwhile is told to come back after as long as a statement may take. */
const NO_HURRY = 'SET LOCAL idle_in_transaction_session_timeout = 0';

const EXTENT: Statement = {
  name: 'bundoc-move-extent-1',
  text: `SELECT (SELECT count(*) FROM bundoc.documents WHERE project = $1), seq FROM bundoc.heads WHERE project = $1`,
};

/**
 * A project in PostgreSQL that is moved away, while nodes serve it. For the last part its lock is held, which each commit takes: nodes need not know of it,
 * and if this process ends, they go on.
 */
export class RowsSource implements MoveSource {
  readonly #place: ProjectInRows;
  #cipher: ProjectCipher | undefined;

  constructor(place: ProjectInRows) {
    this.#place = place;
  }

  get cipher(): ProjectCipher {
    if (this.#cipher === undefined) throw new Error('nothing of the project was read yet');
    return this.#cipher;
  }

  async extent(): Promise<{ size: number; lastSeq: Position }> {
    const { project, database } = this.#place;
    const [row] = await database.query(EXTENT, [project]);
    if (row === undefined) throw new AppError('project_not_found');
    this.#cipher ??= (await readProjectRow(database, this.#place)).cipher;
    const [size, lastSeq] = row as unknown as [number, number];
    return { size, lastSeq };
  }

  readonly page: ReadSealedChanges = (after, limits) => this.#pageOf(this.#place.database)(after, limits);

  async fence(action: (fenced: FencedSource) => Promise<void>, mark: () => string): Promise<void> {
    const { database, project } = this.#place;
    let text: string | undefined;
    try {
      // The file before the head, as whoever brings in a new version of the key takes them.
      const locks = `SELECT file FROM bundoc.projects WHERE project = '${project}' FOR UPDATE;${lockOf(project)}`;
      await database.transaction(`${NO_HURRY};${locks}`, async (transaction, [, , head]) => {
        if (head?.[0] === undefined) throw new AppError('project_not_found');
        const { text: file, cipher } = await readProjectRow(transaction, this.#place);
        this.#cipher = cipher;
        await action({
          page: this.#pageOf(transaction),
          last: async () => ({ ...(await restOfRows(transaction, project, cipher)), file }),
        });
        text = mark();
        if (!(await fenceRows(transaction, project, text))) throw new MoveFailed('there is a mark beside it');
        return true;
      });
    } catch (error) {
      // It held the row of the file: what stands there now stays.
      const isFenced = error instanceof OutcomeUnknown && (await this.mark()) === text;
      if (!isFenced) throw error;
    }
  }

  async stay(mark: string): Promise<void> {
    await unfenceRows(this.#place.database, this.#place.project, mark);
  }

  async mark(): Promise<string | undefined> {
    return (await readFileRow(this.#place.database, this.#place.project)).marker;
  }

  async leave(mark: string): Promise<void> {
    const { database, project } = this.#place;
    await database.transaction('', async (transaction) => {
      await leaveMarker(transaction, project, mark);
      await deleteHead(transaction, project);
      return true;
    });
    await deleteContentRows(project, (action) => database.transaction('', action));
  }

  /** Once a node has brought in a new version of the key, it is fetched. */
  #pageOf(queryable: Queryable): ReadSealedChanges {
    return async (after, limits) => {
      const { project } = this.#place;
      try {
        return await pagesOfRows(queryable, project, this.cipher)(after, limits);
      } catch (error) {
        if (!(error instanceof VersionUnknown || hasCode(error, 'integrity_error'))) throw error;
        this.#cipher = (await readProjectRow(queryable, this.#place)).cipher;
        return await pagesOfRows(queryable, project, this.cipher)(after, limits);
      }
    };
  }
}
