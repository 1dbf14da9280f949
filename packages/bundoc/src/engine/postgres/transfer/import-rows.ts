import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { Position, SealedChange, StoreMetadata } from '../../port/port.ts';
import type { DocumentState, IdempotencyRecord } from '../../port/state.ts';
import { writeOfGroup } from '../commit/write-group.ts';
import type { Statement, Transaction } from '../database/database.ts';
import { RowCipher } from '../rows/row-cipher.ts';
import { eachByName, ROW_COLUMNS, readStateRow } from '../rows/rows.ts';

const FORMER: Statement = {
  name: 'bundoc-import-former-1',
  text: eachByName(
    '$2::bytea[]',
    `SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE project = $1 AND documents.name = wanted.one`,
  ),
};
const SET_SEALS: Statement = {
  name: 'bundoc-import-seals-2',
  text: 'UPDATE bundoc.key_versions SET seals = $3 WHERE project = $1 AND version = $2',
};
const SET_PURGED: Statement = {
  name: 'bundoc-import-purged-1',
  text: 'UPDATE bundoc.heads SET purged_seq = $2 WHERE project = $1',
};

interface Place {
  readonly project: string;
  readonly cipher: ProjectCipher;
}

/**
 * Writes documents and deletions with their sealed bytes unchanged. The transaction holds the project's lock.
 *
 * @param written.isUpdate whether some of them may already exist.
 */
export async function writeSealed(
  transaction: Transaction,
  { project, cipher }: Place,
  written: {
    readonly changes: readonly SealedChange[];
    readonly idempotencyRecords: readonly IdempotencyRecord[];
    readonly seq: Position;
    readonly isUpdate?: boolean;
  },
): Promise<void> {
  const { changes, idempotencyRecords, seq, isUpdate = false } = written;
  const former = isUpdate ? await readFormerStates(transaction, { project, cipher }, changes) : undefined;
  // A row's state is sealed under its document's version; a deletion may be older than every live version.
  const byVersion = Map.groupBy(changes, ({ state, sealed }) =>
    sealed !== undefined && cipher.hasVersion(state.keyVersion) ? state.keyVersion : cipher.version,
  );
  byVersion.set(cipher.version, byVersion.get(cipher.version) ?? []);
  for (const [version, some] of byVersion) {
    const documents = some.map(({ state, sealed }) => ({
      state: { ...state, keyVersion: version },
      former: former?.get(state.fileName.toString('hex')),
      text: undefined,
      sealed,
    }));
    const rows = new RowCipher(project, cipher, version);
    const keys = version === cipher.version ? idempotencyRecords : [];
    const writes = { project, documents, idempotencyRecords: keys, seq, cipher, rows, names: new Map() };
    const { statement, values } = writeOfGroup([writes], undefined);
    await transaction.query(statement, values);
  }
}

/** The current states of these documents, so that the counts stay right. */
async function readFormerStates(
  transaction: Transaction,
  { project, cipher }: Place,
  changes: readonly SealedChange[],
): Promise<ReadonlyMap<string, DocumentState>> {
  if (changes.length === 0) return new Map();
  const found = await transaction.query(FORMER, [project, changes.map(({ state }) => state.fileName)]);
  const rows = new RowCipher(project, cipher);
  return new Map(found.map((row) => [(row[0] as Buffer).toString('hex'), readStateRow(row, rows)]));
}

/** Writes the part of a project besides its documents and its idempotency keys. */
export async function writeStoreMetadata(
  transaction: Transaction,
  { project, cipher }: Place,
  { seals, purgedSeq }: Pick<StoreMetadata, 'seals' | 'purgedSeq'>,
): Promise<void> {
  // The count of a dead version no longer matters.
  for (const { version, count } of seals.filter((one) => cipher.hasVersion(one.version))) {
    const sealed = new RowCipher(project, cipher, version).sealCount(count);
    await transaction.query(SET_SEALS, [project, version, sealed]);
  }
  await transaction.query(SET_PURGED, [project, purgedSeq]);
}
