import { hasCode } from '@bundoc/shared/contract/app-error';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { OnSetAside } from '../../moves/set-aside.ts';
import type { FinalState, MoveCounts, MoveTarget, OpenMoveTarget } from '../../moves/transfer-port.ts';
import { MoveFailed } from '../../port/errors.ts';
import type { Position, SealedChange } from '../../port/port.ts';
import type { OnProgress } from '../../port/reports.ts';
import type { IdempotencyRecord } from '../../port/state.ts';
import type { Connections, Database, Statement, Transaction } from '../database/database.ts';
import { RowReader } from '../reads/row-reader.ts';
import { SharedReads } from '../reads/shared-reads.ts';
import { clearRows } from '../rows/clear-rows.ts';
import { fenceHead, inFence, removeRows, unfenceRows } from '../rows/fence.ts';
import { MARKER, readFileRow } from '../rows/file-row.ts';
import { identifyDatabase } from '../rows/identity-in-rows.ts';
import { endMark } from '../rows/lost-in-rows.ts';
import { insertProjectRows, raiseKeyVersion } from '../rows/project-rows.ts';
import { RowCipher } from '../rows/row-cipher.ts';
import { writeSealed, writeStoreMetadata } from './import-rows.ts';

export interface PostgresMoveTargetOptions {
  readonly project: string;
  readonly database: Connections;
  readonly onSetAside: OnSetAside;
  /** The cipher of the project's current key versions. */
  readonly cipher: () => ProjectCipher;
}

const SET_FILE: Statement = {
  name: 'bundoc-incoming-file-1',
  text: 'UPDATE bundoc.projects SET file = $2, marker = $3 WHERE project = $1',
};
/** The counted living documents and their sealed bytes. */
const COUNTS: Statement = {
  name: 'bundoc-counts-1',
  text: `SELECT coalesce(sum(documents), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM bundoc.collections WHERE project = $1`,
};
/** Idempotency keys in one statement. */
const USED_KEYS_AT_ONCE = 1_000;
/** Limits of one page for verification. */
const PAGE = { limit: 500, bytesMax: 4_194_304 };

/** A database that projects are moved to. */
export async function moveTargetIn(
  database: Database,
  clock: Clock,
): Promise<Pick<OpenMoveTarget, 'identity' | 'project'>> {
  return {
    identity: await identifyDatabase(database, clock),
    project: (project, cipher, onSetAside) =>
      new PostgresMoveTarget({ project, database, cipher, onSetAside }),
  };
}

/** The rows of an arriving project, beside running nodes. */
class PostgresMoveTarget implements MoveTarget {
  readonly #options: PostgresMoveTargetOptions;
  #cipher: ProjectCipher | undefined;
  /** The mark of this move; under another mark, the project belongs to another move. */
  #mark: string | undefined;

  constructor(options: PostgresMoveTargetOptions) {
    this.#options = options;
  }

  async begin(mark: string, isOurs: (mark: string) => Promise<boolean>): Promise<void> {
    const { project, database, cipher } = this.#options;
    const { text, head } = await clearRows(database, { ...this.#options, isLeftOver: isOurs });
    if (text !== undefined || head !== undefined)
      throw new MoveFailed(`${project} is in the database already`);
    await removeRows((action) => database.transaction('', action), project, mark);
    await database.transaction('', async (transaction) => {
      await insertProjectRows(transaction, project, cipher().version);
      await fenceHead(transaction, project);
      return true;
    });
    this.#mark = mark;
  }

  async put(changes: readonly SealedChange[], position: Position): Promise<void> {
    await this.#transact((transaction) => this.#write(transaction, changes, [], position));
  }

  /** Decrypts each row as nodes do. */
  async verify(after: Position, onProgress: OnProgress): Promise<void> {
    const { project, cipher } = this.#options;
    let done = 0;
    try {
      for (let from = after, isLast = false; !isLast; ) {
        const read = (database: Transaction) => {
          const place = { project, database, reads: new SharedReads(database), cipher: cipher() };
          const options = { ...place, clock: systemClock, onIntegrityError: () => undefined };
          return new RowReader(options, new RowCipher(project, place.cipher)).sealedChanges(from, PAGE);
        };
        const { changes, position, isComplete } = await this.#transact(read);
        done += changes.length;
        onProgress(done, isComplete ? done : done + PAGE.limit);
        from = position;
        isLast = isComplete;
      }
    } catch (error) {
      if (!hasCode(error, 'integrity_error')) throw error;
      throw new MoveFailed('a row differs from its copy', { cause: error });
    }
  }

  async finish(last: FinalState, mark: string): Promise<MoveCounts> {
    const { project } = this.#options;
    const { file, lastSeq, idempotencyRecords } = last;
    for (let at = 0; at < idempotencyRecords.length; at += USED_KEYS_AT_ONCE)
      await this.#transact((transaction) =>
        this.#write(transaction, [], idempotencyRecords.slice(at, at + USED_KEYS_AT_ONCE), lastSeq),
      );
    const counts = await this.#transact(async (transaction) => {
      await writeStoreMetadata(transaction, { project, cipher: this.#options.cipher() }, last);
      await transaction.query(SET_FILE, [project, file, mark]);
      await endMark(transaction, project);
      const [row] = await transaction.query(COUNTS, [project]);
      const [documents, bytes] = row as unknown as [number, number];
      return { documents, bytes };
    });
    this.#mark = mark;
    return counts;
  }

  async present() {
    const { text, marker } = await readFileRow(this.#options.database, this.#options.project);
    return { hasFile: text !== undefined, mark: marker };
  }

  async open(): Promise<void> {
    await unfenceRows(this.#options.database, this.#options.project, this.#mark ?? '');
  }

  async discard(): Promise<void> {
    const { project, database } = this.#options;
    if (this.#mark === undefined) return;
    // Checks that no other move has taken over.
    await this.#transact(async () => undefined);
    await removeRows((action) => database.transaction('', action), project, this.#mark);
    await this.open();
  }

  /**
   * Runs a transaction on the arriving project. Nodes that still have an earlier project of this name open
   * must not see the new rows, so the head is fenced between transactions.
   */
  async #transact<T>(action: (transaction: Transaction) => Promise<T>): Promise<T> {
    const { project, database } = this.#options;
    const lock = `SELECT ${MARKER} FROM bundoc.projects WHERE project = '${project}' FOR UPDATE`;
    const done = await database.transaction(lock, async (transaction, [row]) => {
      const isMine = row?.[0]?.[0] === this.#mark;
      const run = async () => {
        await this.#raiseVersions(transaction);
        return { result: await action(transaction) };
      };
      return isMine ? inFence(transaction, project, run) : undefined;
    });
    if (done === undefined) throw new MoveFailed(`the move of ${project} was given up`);
    return done.result;
  }

  async #raiseVersions(transaction: Transaction): Promise<void> {
    const cipher = this.#options.cipher();
    if (cipher === this.#cipher) return;
    for (const version of cipher.versions) await raiseKeyVersion(transaction, this.#options.project, version);
    this.#cipher = cipher;
  }

  #write(
    transaction: Transaction,
    changes: readonly SealedChange[],
    idempotencyRecords: readonly IdempotencyRecord[],
    seq: Position,
  ): Promise<void> {
    const place = { project: this.#options.project, cipher: this.#options.cipher() };
    return writeSealed(transaction, place, { changes, idempotencyRecords, seq, isUpdate: true });
  }
}
