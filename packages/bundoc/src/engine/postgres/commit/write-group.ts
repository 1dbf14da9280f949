import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { ByteWriter } from '../../port/bytes.ts';
import type { DocumentState, IdempotencyRecord } from '../../port/state.ts';
import type { BoundStatement, Statement } from '../database/database.ts';
import { RowParameters } from '../database/parameters.ts';
import type { DocumentEntries } from '../indexes/index-rows.ts';
import { encodeCell } from '../order/cell.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { entriesByProjectAndName } from '../rows/rows.ts';
import type { PlannedRow } from './plan-commits.ts';

const NAME_BYTES = 16;
const TOKEN_BYTES = 16;
const HEAD_BYTES = 44;
/** Approximate bytes of the rows of a write without its sealed bytes. */
const ROW_BYTES = 512;

/**
 * The bytes of all rows are one binary parameter, which the server splits: in arrays they would be
 * hexadecimal text.
 */
const BYTES = '$1::bytea';
const COMMIT_ID = '$2::uuid';
let parameters = 2;
const DOCUMENTS = rowsOf({
  project: 'text',
  key_version: 'integer',
  at: 'integer',
  state_bytes: 'integer',
  sealed_bytes: 'integer',
  keys_bytes: 'integer',
  row_seq: 'bigint',
  created_seq: 'bigint',
  deleted_ms: 'bigint',
});
const COLLECTIONS = rowsOf({
  project: 'text',
  key_version: 'integer',
  at: 'integer',
  name_bytes: 'integer',
  first_seq: 'bigint',
  documents: 'bigint',
  bytes: 'bigint',
});
const VERSIONS = rowsOf({
  project: 'text',
  version: 'integer',
  documents: 'bigint',
  at: 'integer',
  seals_bytes: 'integer',
});
const USED_KEYS = rowsOf({
  project: 'text',
  key_version: 'integer',
  at: 'integer',
  answer_bytes: 'integer',
  at_ms: 'bigint',
});
const HEADS = rowsOf({ project: 'text', key_version: 'integer', seq: 'bigint' });
/** Documents that may have entries, and all their new entries. */
const INDEXED = rowsOf({ project: 'text', name: 'bytea' });
const ENTRIES = rowsOf({
  project: 'text',
  index_id: 'bigint',
  token: 'bytea',
  created_seq: 'bigint',
  name: 'bytea',
});

function rowsOf<T extends ConstructorParameters<typeof RowParameters>[0]>(types: T): RowParameters<T> {
  const rows = new RowParameters(types, parameters + 1);
  parameters += rows.count;
  return rows;
}

/**
 * Removes the entries that documents no longer have, and adds the new ones; the two sets of rows are
 * disjoint. Grouping tells them apart, by hashing or sorting within the available memory. With a join, a
 * planner that expects too many rows for a hash table would scan all new entries for each old one.
 */
const WRITE_ENTRIES = `, gone AS (
  DELETE FROM bundoc.index_tokens WHERE ctid = ANY (ARRAY(
    SELECT max(row_id) FROM (
      ${entriesByProjectAndName(INDEXED.arrays.project, INDEXED.arrays.name, 'ctid AS row_id, project, index_id, token, created_seq, name')}
      UNION ALL SELECT NULL::tid, r.* FROM ${ENTRIES.unnest}
    ) AS e GROUP BY project, index_id, token, created_seq, name HAVING bool_and(row_id IS NOT NULL)
  ))
), entry AS (
  INSERT INTO bundoc.index_tokens (project, index_id, token, created_seq, name)
  SELECT r.* FROM ${ENTRIES.unnest} ON CONFLICT DO NOTHING
)`;

/**
 * Finds every row through a unique index with ON CONFLICT rather than a join. With stale statistics, the
 * planner of a join reads a whole table for one row. Heads are locked, so they exist.
 */
function writeGroup(name: string, more: string): Statement {
  return {
    name,
    text: `
WITH document AS (
  INSERT INTO bundoc.documents AS d
    (project, name, collection, seq, created_seq, deleted_ms, key_version, rev, state, sealed, keys)
  SELECT project, substr(${BYTES}, at, 16), substr(${BYTES}, at + 16, 16), row_seq, created_seq, deleted_ms, key_version,
    substr(${BYTES}, at + 32, 12), substr(${BYTES}, at + 44, state_bytes),
    CASE WHEN sealed_bytes > 0 THEN substr(${BYTES}, at + 44 + state_bytes, sealed_bytes) END,
    CASE WHEN keys_bytes > 0 THEN substr(${BYTES}, at + 44 + state_bytes + sealed_bytes, keys_bytes) END
  FROM ${DOCUMENTS.unnest}
  ON CONFLICT (project, name) DO UPDATE SET seq = excluded.seq, created_seq = excluded.created_seq,
    deleted_ms = excluded.deleted_ms, key_version = excluded.key_version, rev = excluded.rev,
    state = excluded.state, sealed = excluded.sealed, keys = excluded.keys
), collection AS (
  INSERT INTO bundoc.collections AS c (project, token, first_seq, key_version, name, documents, bytes)
  SELECT project, substr(${BYTES}, at, 16), first_seq, key_version, substr(${BYTES}, at + 16, name_bytes), documents, bytes
  FROM ${COLLECTIONS.unnest}
  ON CONFLICT (project, token) DO UPDATE SET documents = c.documents + excluded.documents,
    bytes = c.bytes + excluded.bytes, key_version = excluded.key_version, name = excluded.name
), version AS (
  INSERT INTO bundoc.key_versions AS v (project, version, documents, seals)
  SELECT project, version, documents, CASE WHEN seals_bytes > 0 THEN substr(${BYTES}, at, seals_bytes) END
  FROM ${VERSIONS.unnest}
  ON CONFLICT (project, version) DO UPDATE SET documents = v.documents + excluded.documents,
    seals = coalesce(excluded.seals, v.seals)
), used AS (
  INSERT INTO bundoc.used_keys AS u (project, token, at_ms, key_version, answer)
  SELECT project, substr(${BYTES}, at, 16), at_ms, key_version, substr(${BYTES}, at + 16, answer_bytes)
  FROM ${USED_KEYS.unnest}
  ON CONFLICT (project, token) DO UPDATE SET at_ms = excluded.at_ms, key_version = excluded.key_version, answer = excluded.answer
), committed AS (
  INSERT INTO bundoc.group_commits (id) SELECT ${COMMIT_ID} WHERE ${COMMIT_ID} IS NOT NULL
)${more}
INSERT INTO bundoc.heads (project, key_version, seq) SELECT r.* FROM ${HEADS.unnest}
ON CONFLICT (project) DO UPDATE SET seq = excluded.seq`,
  };
}

const WRITE_GROUP = writeGroup('bundoc-write-group-5', '');
const WRITE_INDEXED_GROUP = writeGroup('bundoc-write-indexed-group-5', WRITE_ENTRIES);

/** Sealed names of collections, kept while the project is open so that each is sealed once. */
export type SealedNames = Map<string, Buffer>;

/** The rows that a transaction writes for one project. */
export interface ProjectWrites {
  readonly project: string;
  readonly documents: readonly PlannedRow[];
  readonly idempotencyRecords: readonly IdempotencyRecord[];
  /** The position of its last commit. */
  readonly seq: number;
  /** The sealed count of the current key version, including the new seals; undefined leaves it unchanged. */
  readonly seals?: Buffer | undefined;
  readonly cipher: ProjectCipher;
  readonly rows: RowCipher;
  readonly names: SealedNames;
}

/**
 * Writes everything of a transaction in one statement. Seals every document directly into the buffer that is
 * sent.
 *
 * @param commitId identifies the outcome for a later lookup; undefined for none.
 */
export function writeOfGroup(
  projects: readonly ProjectWrites[],
  commitId: string | undefined,
): BoundStatement {
  let capacity = 0;
  for (const { documents } of projects) for (const { state } of documents) capacity += state.size + ROW_BYTES;
  const group = new GroupWriter(capacity);
  for (const project of projects) group.add(project);
  return group.finish(commitId);
}

/** Gathers the rows that a transaction writes. */
class GroupWriter {
  readonly #writer: ByteWriter;
  readonly #documents = DOCUMENTS.collect();
  readonly #collections = COLLECTIONS.collect();
  readonly #versions = VERSIONS.collect();
  readonly #idempotencyRecords = USED_KEYS.collect();
  readonly #heads = HEADS.collect();
  readonly #indexed = INDEXED.collect();
  readonly #entries = ENTRIES.collect();
  #hasIndexes = false;

  constructor(capacity: number) {
    this.#writer = new ByteWriter(capacity);
  }

  add(writes: ProjectWrites): void {
    for (const document of writes.documents) this.#addDocument(document, writes);
    this.#addCollections(writes);
    this.#addVersions(writes);
    this.#addUsedKeys(writes);
    this.#heads.push({ project: writes.project, key_version: writes.rows.version, seq: writes.seq });
  }

  finish(commitId: string | undefined): BoundStatement {
    const values = [
      this.#writer.finish(),
      commitId,
      ...this.#documents.values(),
      ...this.#collections.values(),
      ...this.#versions.values(),
      ...this.#idempotencyRecords.values(),
      ...this.#heads.values(),
    ];
    if (!this.#hasIndexes) return { statement: WRITE_GROUP, values };
    values.push(...this.#indexed.values(), ...this.#entries.values());
    return { statement: WRITE_INDEXED_GROUP, values };
  }

  /** `name(16) | collection token(16) | revision(12) | sealed state | sealed document | sealed keys`. */
  #addDocument({ state, former, text, sealed, entries }: PlannedRow, writes: ProjectWrites): void {
    const { project, cipher, rows } = writes;
    const writer = this.#writer;
    const at = this.#place;
    writer.raw(state.fileName, 0, NAME_BYTES).raw(rows.collectionToken(state.collection)).raw(state.rev);
    writer.raw(rows.sealState(state));
    const stateBytes = this.#place - at - HEAD_BYTES;
    if (sealed !== undefined) writer.raw(sealed);
    if (text !== undefined)
      cipher.sealDocument(state.fileName.toString('hex'), text, writer.reserve(state.size));
    const keys = entries && sealedKeys(state, entries, rows);
    if (keys !== undefined) writer.raw(keys);
    this.#documents.push({
      project,
      key_version: rows.version,
      at,
      state_bytes: stateBytes,
      sealed_bytes: state.size,
      keys_bytes: keys?.length ?? 0,
      row_seq: state.seq,
      created_seq: state.createdSeq,
      deleted_ms: state.deletedMs,
    });
    if (entries === undefined) return;
    this.#hasIndexes = true;
    const name = state.fileName.toString('hex');
    if (former !== undefined) this.#indexed.push({ project, name });
    for (const entry of entries)
      for (const token of entry.tokens)
        this.#entries.push({
          project,
          index_id: entry.index.id,
          token,
          created_seq: state.createdSeq,
          name,
        });
  }

  #addCollections({ project, documents, rows, names }: ProjectWrites): void {
    for (const [name, change] of changesOfCollections(documents)) {
      if (!change.isOfNew && change.documents === 0 && change.bytes === 0) continue;
      const token = rows.collectionToken(name);
      const sealed = sealedName(names, rows, token, name);
      const at = this.#place;
      this.#writer.raw(token, 0, TOKEN_BYTES).raw(sealed);
      this.#collections.push({
        project,
        key_version: rows.version,
        at,
        name_bytes: sealed.length,
        first_seq: change.firstSeq,
        documents: change.documents,
        bytes: change.bytes,
      });
    }
  }

  #addVersions({ project, documents, rows, seals }: ProjectWrites): void {
    const changes = changesOfVersions(documents);
    if (seals !== undefined) changes.set(rows.version, changes.get(rows.version) ?? 0);
    for (const [version, change] of changes) {
      const own = version === rows.version ? seals : undefined;
      if (change === 0 && own === undefined) continue;
      const at = this.#place;
      if (own !== undefined) this.#writer.raw(own);
      this.#versions.push({ project, version, documents: change, at, seals_bytes: own?.length ?? 0 });
    }
  }

  #addUsedKeys({ project, idempotencyRecords, rows }: ProjectWrites): void {
    for (const used of idempotencyRecords) {
      const token = rows.idempotencyToken(used.key);
      const answer = rows.sealIdempotencyRecord(token, used);
      const at = this.#place;
      this.#writer.raw(token, 0, TOKEN_BYTES).raw(answer);
      this.#idempotencyRecords.push({
        project,
        key_version: rows.version,
        at,
        answer_bytes: answer.length,
        at_ms: used.atMs,
      });
    }
  }

  /** The position of the next byte, counted from 1 as in SQL. */
  get #place(): number {
    return this.#writer.length + 1;
  }
}

/** The keys of a living document in the indexes of its collection. */
function sealedKeys(
  state: DocumentState,
  entries: readonly DocumentEntries[],
  rows: RowCipher,
): Buffer | undefined {
  if (entries.length === 0 || state.deletedMs !== 0) return undefined;
  const keys = entries.flatMap(({ index, keys }) => (keys === undefined ? [] : [{ id: index.id, keys }]));
  return rows.sealKeys(state, encodeCell(keys));
}

/** Maximum number of sealed names that an open project keeps: it may have any number of collections. */
const NAMES_KEPT_MAX = 1_000;

function sealedName(names: SealedNames, rows: RowCipher, token: Buffer, name: string): Buffer {
  const known = names.get(name);
  if (known !== undefined) return known;
  const sealed = rows.sealCollectionName(token, name);
  if (names.size >= NAMES_KEPT_MAX) names.clear();
  names.set(name, sealed);
  return sealed;
}

interface CollectionChange {
  /** Whether a document has its first state, so that the collection may be new. */
  isOfNew: boolean;
  /** The position of its first document; used for a new collection. */
  firstSeq: number;
  documents: number;
  bytes: number;
}

function changesOfCollections(documents: readonly PlannedRow[]): Map<string, CollectionChange> {
  const changes = new Map<string, CollectionChange>();
  for (const { state, former } of documents) {
    const change = changes.get(state.collection) ?? {
      isOfNew: false,
      firstSeq: state.seq,
      documents: 0,
      bytes: 0,
    };
    change.isOfNew ||= former === undefined;
    change.firstSeq = Math.min(change.firstSeq, state.seq);
    change.documents += Number(state.deletedMs === 0) - Number(former?.deletedMs === 0);
    change.bytes += state.size - (former?.size ?? 0);
    changes.set(state.collection, change);
  }
  return changes;
}

function changesOfVersions(documents: readonly PlannedRow[]): Map<number, number> {
  const changes = new Map<number, number>();
  const add = (version: number, change: number) => changes.set(version, (changes.get(version) ?? 0) + change);
  for (const { state, former } of documents) {
    if (former?.deletedMs === 0) add(former.keyVersion, -1);
    if (state.deletedMs === 0) add(state.keyVersion, 1);
  }
  return changes;
}
