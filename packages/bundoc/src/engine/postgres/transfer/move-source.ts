import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { FencedSource, MoveSource, ReadSealedChanges } from '../../moves/transfer-port.ts';
import type { Position } from '../../port/port.ts';
import type { Queryable } from '../database/database.ts';
import { type ProjectInRows, readProjectRow } from '../projects/admin.ts';
import { pagesOfRows } from '../reads/pages-of-rows.ts';
import { fenceRows, removeRows, unfenceRows } from '../rows/fence.ts';
import { readFileRow } from '../rows/file-row.ts';
import { VersionUnknown } from '../rows/row-cipher.ts';
import { EXTENT, readStoreMetadata } from '../rows/store-metadata.ts';

/** A project in PostgreSQL that moves away while nodes serve it. */
export class PostgresMoveSource implements MoveSource {
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
    const [lastSeq, , size] = row as unknown as [number, number, number];
    return { size, lastSeq };
  }

  readonly page: ReadSealedChanges = (after, limits) => this.#pageOf(this.#place.database)(after, limits);

  fence(action: (fenced: FencedSource) => Promise<void>, mark: () => string): Promise<void> {
    const { database, project } = this.#place;
    return fenceRows(database, project, async (transaction, isThere) => {
      if (!isThere) throw new AppError('project_not_found');
      const { text: file, cipher } = await readProjectRow(transaction, this.#place);
      this.#cipher = cipher;
      const last = async () => ({ ...(await readStoreMetadata(transaction, project, cipher)), file });
      await action({ page: this.#pageOf(transaction), last });
      return mark();
    });
  }

  async stay(mark: string): Promise<void> {
    await unfenceRows(this.#place.database, this.#place.project, mark);
  }

  async mark(): Promise<string | undefined> {
    return (await readFileRow(this.#place.database, this.#place.project)).marker;
  }

  leave(mark: string): Promise<void> {
    const { database, project } = this.#place;
    return removeRows((action) => database.transaction('', action), project, mark);
  }

  /** Fetches a new version of the key once a node has added it. */
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
