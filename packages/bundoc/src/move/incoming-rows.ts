import { hasCode } from '@bundoc/shared/errors';
import { v7 as uuidv7 } from 'uuid';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import { formatMoveMark, type MoveMark } from '../project/move-mark.ts';
import { isSameProject, parseProjectFile } from '../project/project-file.ts';
import { moveOf } from '../project/project-rows.ts';
import type { DocumentState, UsedKey } from '../storage/embedded/record.ts';
import type { OnProgress } from '../storage/embedded/verify.ts';
import type { Position, SealedChange } from '../storage/port.ts';
import type { Connections, Statement, Transaction } from '../storage/postgres/database.ts';
import { insertFileRow, lockFileRow, readFileRow, replaceFileRow } from '../storage/postgres/file-row.ts';
import { writeOfGroup } from '../storage/postgres/group-rows.ts';
import {
  deleteContentRows,
  deleteHead,
  insertProjectRows,
  lockOf,
  raiseKeyVersion,
} from '../storage/postgres/project-rows.ts';
import { RowCipher } from '../storage/postgres/row-cipher.ts';
import { eachByName, ROW_COLUMNS, readStateRow } from '../storage/postgres/rows.ts';
import {
  type Copied,
  type LastOfProject,
  type MoveCounts,
  MoveFailed,
  type MoveTarget,
} from './move-project.ts';
import { pagesOfRows } from './pages-of-rows.ts';

export interface IncomingRowsOptions {
  readonly project: string;
  readonly database: Connections;
  /** Of the versions that the project has now. */
  readonly cipher: () => ProjectCipher;
}

const COPIED: Statement = {
  name: 'bundoc-incoming-copied-1',
  text: 'SELECT seq, purged_seq FROM bundoc.heads WHERE project = $1',
};
const SET_PURGED: Statement = {
  name: 'bundoc-incoming-purged-1',
  text: 'UPDATE bundoc.heads SET purged_seq = $2 WHERE project = $1',
};
const SET_SEALS: Statement = {
  name: 'bundoc-incoming-seals-1',
  text: 'UPDATE bundoc.key_versions SET seals = greatest(seals, $3) WHERE project = $1 AND version = $2',
};
const FORMER: Statement = {
  name: 'bundoc-incoming-former-1',
  text: eachByName(
    '$2::bytea[]',
    `SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE project = $1 AND documents.name = wanted.one`,
  ),
};
const COUNTS: Statement = {
  name: 'bundoc-incoming-counts-1',
  text: `SELECT coalesce(sum(documents), 0)::bigint, coalesce(sum(bytes), 0)::bigint
         FROM bundoc.collections WHERE project = $1`,
};
/** Idempotency keys of one statement. */
const USED_KEYS_AT_ONCE = 1_000;
/** Of one page that is read again. */
const PAGE = { limit: 500, bytesMax: 4_194_304 };

/**
 * Reserves the id of a project that is brought in: with the mark, nodes make none and open none.
 *
 * @returns the mark that stands: of a move that was cut short, and is gone on with.
 * @throws MoveFailed where there is a project, or one that was deleted.
 */
export async function reserveRows(database: Connections, project: string, mark: MoveMark): Promise<MoveMark> {
  const { text, marker, hasContent } = await readFileRow(database, project);
  const present = text === undefined ? undefined : moveOf(project, text);
  if (present?.state === 'incoming') return present;
  if (text === undefined && marker !== undefined) throw new MoveFailed(`${project} was deleted there`);
  if (text !== undefined && present === undefined)
    throw new MoveFailed(`${project} is in the database already`);
  if (text === undefined && hasContent)
    throw new MoveFailed(`the database has rows of ${project}, and no project file`);
  // What is left of it from before it was moved away.
  await deleteContentRows(project, (action) => database.transaction('', action));
  const reserved = formatMoveMark(mark);
  const isReserved =
    text === undefined
      ? await insertFileRow(database, project, reserved)
      : await replaceFileRow(database, project, reserved, text);
  if (!isReserved) throw new MoveFailed(`somebody else was at work on ${project} in the database`);
  return mark;
}

/**
 * Puts the project's file in the place of the mark: from then on nodes serve it. May be done again.
 *
 * @throws MoveFailed for another mark, and another project: then this is not where it was brought.
 */
export async function openRows(database: Connections, mark: MoveMark, file: string): Promise<void> {
  const project = mark.moving;
  if (await replaceFileRow(database, project, file, formatMoveMark(mark))) return;
  const { text } = await readFileRow(database, project);
  const isFile = text !== undefined && moveOf(project, text) === undefined;
  const [brought, present] = [file, text ?? ''].map((one) => Buffer.from(one)) as [Buffer, Buffer];
  if (isFile && isSameProject(parseProjectFile(project, brought), parseProjectFile(project, present))) return;
  throw new MoveFailed(`${project} is not in the database as it was brought there`);
}

/**
 * Gives up what is being brought in of a project that has not changed hands: its mark says from then on that it is not here, and what was copied is removed.
 * What a process that died has under way ends before, or changes nothing. May be done again; nothing is done where nothing is being brought in.
 */
export async function abandonRows(database: Connections, project: string): Promise<void> {
  const isElsewhere = await database.transaction('', async (transaction) => {
    const text = await lockFileRow(transaction, project);
    const mark = text === undefined ? undefined : moveOf(project, text);
    if (text === undefined || mark === undefined) return false;
    if (mark.state === 'moved') return true;
    await replaceFileRow(transaction, project, formatMoveMark({ ...mark, state: 'moved' }), text);
    await deleteHead(transaction, project);
    return true;
  });
  if (isElsewhere === true) await deleteContentRows(project, (action) => database.transaction('', action));
}

/** The rows of a project that is brought in; reserved. Its head says how far the copy is, and, until it is finished, in `purged_seq` what it began with. */
export class IncomingRows implements MoveTarget {
  readonly #options: IncomingRowsOptions;
  #cipher: ProjectCipher | undefined;

  constructor(options: IncomingRowsOptions) {
    this.#options = options;
  }

  async begin(begun: Position): Promise<Copied> {
    const { project, database, cipher } = this.#options;
    const [row] = await database.query(COPIED, [project]);
    if (row !== undefined) {
      const [position, before] = row as unknown as [Position, Position];
      return { position, begun: before };
    }
    await database.transaction('', async (transaction) => {
      await insertProjectRows(transaction, project, cipher().version);
      await transaction.query(SET_PURGED, [project, begun]);
      return true;
    });
    return { position: 0, begun };
  }

  async put(changes: readonly SealedChange[], { position }: Copied): Promise<void> {
    await this.#transact((transaction) => this.#write(transaction, changes, [], position));
  }

  /** Each row is opened as nodes open it. */
  async verify(after: Position, onProgress: OnProgress): Promise<void> {
    const { project, database } = this.#options;
    const page = pagesOfRows(database, project, this.#options.cipher());
    let done = 0;
    try {
      for (let from = after, isLast = false; !isLast; ) {
        const { changes, position, isComplete } = await page(from, PAGE);
        done += changes.length;
        onProgress(done, isComplete ? done : done + PAGE.limit);
        from = position;
        isLast = isComplete;
      }
    } catch (error) {
      if (!hasCode(error, 'integrity_error')) throw error;
      throw new MoveFailed('a row is not there as it was copied', { cause: error });
    }
  }

  async finish({ lastSeq, purgedSeq, seals, usedKeys }: LastOfProject): Promise<MoveCounts> {
    const { project } = this.#options;
    for (let at = 0; at < usedKeys.length; at += USED_KEYS_AT_ONCE)
      await this.#transact((transaction) =>
        this.#write(transaction, [], usedKeys.slice(at, at + USED_KEYS_AT_ONCE), lastSeq),
      );
    const [documents, bytes] = await this.#transact(async (transaction) => {
      for (const { version, count } of seals) await transaction.query(SET_SEALS, [project, version, count]);
      await transaction.query(SET_PURGED, [project, purgedSeq]);
      const [counts] = await transaction.query(COUNTS, [project]);
      return counts as unknown as [number, number];
    });
    return { documents, bytes };
  }

  async discard(): Promise<void> {
    const { project, database } = this.#options;
    await deleteContentRows(project, (action) => database.transaction('', action));
  }

  async #transact<T>(action: (transaction: Transaction) => Promise<T>): Promise<T> {
    const { project, database } = this.#options;
    const done = await database.transaction(lockOf(project), async (transaction, [head]) => {
      if (head?.[0] === undefined) throw new MoveFailed(`the move of ${project} was given up`);
      await this.#raiseVersions(transaction);
      return { result: await action(transaction) };
    });
    if (done === undefined) throw new Error('a transaction that was to be committed was not');
    return done.result;
  }

  async #raiseVersions(transaction: Transaction): Promise<void> {
    const cipher = this.#options.cipher();
    if (cipher === this.#cipher) return;
    for (const version of cipher.versions) await raiseKeyVersion(transaction, this.#options.project, version);
    this.#cipher = cipher;
  }

  async #write(
    transaction: Transaction,
    changes: readonly SealedChange[],
    usedKeys: readonly UsedKey[],
    seq: Position,
  ): Promise<void> {
    const { project } = this.#options;
    const cipher = this.#options.cipher();
    const former = await this.#formerOf(transaction, changes, cipher);
    // A row's state is sealed under the version that its document is; a deletion may be older than any that is still live.
    const versionOf = ({ state, sealed }: SealedChange) =>
      sealed !== undefined && cipher.hasVersion(state.keyVersion) ? state.keyVersion : cipher.version;
    const byVersion = Map.groupBy(changes, versionOf);
    byVersion.set(cipher.version, byVersion.get(cipher.version) ?? []);
    for (const [version, some] of byVersion) {
      const documents = some.map(({ state, sealed }) => ({
        state: { ...state, keyVersion: version },
        former: former.get(state.fileName.toString('hex')),
        text: undefined,
        sealed,
      }));
      const group = {
        documents,
        usedKeys: version === cipher.version ? usedKeys : [],
        seq,
      };
      const ciphers = { cipher, rows: new RowCipher(project, cipher, version), names: new Map() };
      const { statement, values } = writeOfGroup(group, { project, commitId: uuidv7() }, ciphers);
      await transaction.query(statement, values);
    }
  }

  /** What is there of these documents already, so that the counts stay right. */
  async #formerOf(
    transaction: Transaction,
    changes: readonly SealedChange[],
    cipher: ProjectCipher,
  ): Promise<ReadonlyMap<string, DocumentState>> {
    if (changes.length === 0) return new Map();
    const names = changes.map(({ state }) => state.fileName);
    const found = await transaction.query(FORMER, [this.#options.project, names]);
    const rows = new RowCipher(this.#options.project, cipher);
    return new Map(found.map((row) => [(row[0] as Buffer).toString('hex'), readStateRow(row, rows)]));
  }
}
