import { hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import { formatMoveMark, type MoveMark } from '../project/move-mark.ts';
import { type ProjectInRows, readProjectRow } from '../project/project-in-rows.ts';
import { moveOf } from '../project/project-rows.ts';
import type { Position } from '../storage/port.ts';
import {
  OutcomeUnknown,
  type Queryable,
  type Statement,
  type Transaction,
} from '../storage/postgres/database.ts';
import { lockFileRow, replaceFileRow } from '../storage/postgres/file-row.ts';
import { deleteHead, lockOf } from '../storage/postgres/project-rows.ts';
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
  readonly #mark: MoveMark;
  #cipher: ProjectCipher;

  private constructor(place: ProjectInRows, mark: MoveMark, cipher: ProjectCipher) {
    this.#place = place;
    this.#mark = mark;
    this.#cipher = cipher;
  }

  /** @param mark what the project is marked with once it is moved. @throws AppError of the project's file and key. */
  static async open(place: ProjectInRows, mark: MoveMark): Promise<RowsSource> {
    const { cipher } = await readProjectRow(place.database, place);
    return new RowsSource(place, mark, cipher);
  }

  /** Of the versions of the key that the latest page needed. */
  get cipher(): ProjectCipher {
    return this.#cipher;
  }

  async extent(): Promise<{ size: number; lastSeq: Position }> {
    const [row] = await this.#place.database.query(EXTENT, [this.#place.project]);
    if (row === undefined) throw new MoveFailed(`there is no project ${this.#place.project}`);
    const [size, lastSeq] = row as unknown as [number, number];
    return { size, lastSeq };
  }

  readonly page: ReadSealedChanges = (after, limits) => this.#pageOf(this.#place.database)(after, limits);

  async switchOver(action: (fenced: FencedSource) => Promise<void>): Promise<void> {
    const { database, project } = this.#place;
    try {
      // The file before the head, as whoever brings in a new version of the key takes them.
      const locks = `SELECT file FROM bundoc.projects WHERE project = '${project}' FOR UPDATE;${lockOf(project)}`;
      await database.transaction(`${NO_HURRY};${locks}`, async (transaction, [, , head]) => {
        if (head?.[0] === undefined) throw new MoveFailed(`there is no project ${project}`);
        const { text, cipher } = await readProjectRow(transaction, this.#place);
        this.#cipher = cipher;
        await action({
          page: this.#pageOf(transaction),
          last: async () => {
            const rest = await restOfRows(transaction, project, cipher);
            return { ...rest, file: text, cipher, counts: rest };
          },
        });
        await this.#hand(transaction, text);
        return true;
      });
    } catch (error) {
      if (!(error instanceof OutcomeUnknown) || !(await this.#isMoved())) throw error;
    }
  }

  /** @throws MoveFailed when the file changed, for a new version of the key, since it was copied. */
  async #hand(transaction: Transaction, text: string): Promise<void> {
    const { project } = this.#place;
    if (!(await replaceFileRow(transaction, project, formatMoveMark(this.#mark), text)))
      throw new MoveFailed('the project file has changed meanwhile');
    await deleteHead(transaction, project);
  }

  /** What became of a transaction whose commit was not answered. It held the file's row: behind that lock its outcome stands. */
  async #isMoved(): Promise<boolean> {
    const { database, project } = this.#place;
    const text = await database.transaction(
      '',
      async (transaction) => (await lockFileRow(transaction, project)) ?? '',
    );
    return moveOf(project, text ?? '')?.move === this.#mark.move;
  }

  /** Once a node has brought in a new version of the key, it is fetched. */
  #pageOf(queryable: Queryable): ReadSealedChanges {
    return async (after, limits) => {
      const { project } = this.#place;
      try {
        return await pagesOfRows(queryable, project, this.#cipher)(after, limits);
      } catch (error) {
        if (!(error instanceof VersionUnknown || hasCode(error, 'integrity_error'))) throw error;
        this.#cipher = (await readProjectRow(queryable, this.#place)).cipher;
        return await pagesOfRows(queryable, project, this.#cipher)(after, limits);
      }
    };
  }
}
