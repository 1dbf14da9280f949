import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import { ByteWriter } from '../embedded/bytes.ts';
import { tokensOf } from './blind-index.ts';
import type { Statement } from './database.ts';
import type { Decided, DecidedGroup } from './decide.ts';
import type { RowCipher } from './row-cipher.ts';
import { entriesByName } from './rows.ts';

const NAME_BYTES = 16;
const HEAD_BYTES = 44;
/** What a row takes beside its sealed bytes, about. */
const ROW_BYTES = 320;

const NEW_ENTRIES =
  'unnest($23::bigint[], $24::bytea[], $25::bigint[], $26::bytea[]) AS n(index_id, token, created_seq, name)';

/**
 * Entries that documents of before have no longer, and those that all have: neither touches a row of the other. They are told apart by grouping,
 * which is by hashes or sorted, within whatever memory there is; a planner that expects too many rows for a table of hashes would look through all
 * new ones for each of the old.
 */
const ENTRIES = `, gone AS (
  DELETE FROM bundoc.blind_entries WHERE project = $1 AND ctid = ANY (ARRAY(
    SELECT max(at) FROM (
      ${entriesByName('$22::bytea[]', 'ctid AS at, index_id, token, created_seq, name')}
      UNION ALL SELECT NULL::tid, n.* FROM ${NEW_ENTRIES}
    ) AS e GROUP BY index_id, token, created_seq, name HAVING bool_and(at IS NOT NULL)
  ))
), entry AS (
  INSERT INTO bundoc.blind_entries (project, index_id, token, created_seq, name)
  SELECT $1, n.* FROM ${NEW_ENTRIES} ON CONFLICT DO NOTHING
)`;

function writeGroup(name: string, more: string): Statement {
  return {
    name,
    text: `
WITH document AS (
  INSERT INTO bundoc.documents AS d
    (project, name, collection, seq, created_seq, deleted_ms, key_version, rev, state, sealed)
  SELECT $1, substr($2::bytea, at, 16), substr($2::bytea, at + 16, 16), row_seq, created_seq, deleted_ms, $3::integer, substr($2::bytea, at + 32, 12),
    substr($2::bytea, at + 44, state_bytes), CASE WHEN sealed_bytes > 0 THEN substr($2::bytea, at + 44 + state_bytes, sealed_bytes) END
  FROM unnest($4::integer[], $5::integer[], $6::integer[], $7::bigint[], $8::bigint[], $9::bigint[])
    AS r(at, state_bytes, sealed_bytes, row_seq, created_seq, deleted_ms)
  ON CONFLICT (project, name) DO UPDATE SET seq = excluded.seq, created_seq = excluded.created_seq,
    deleted_ms = excluded.deleted_ms, key_version = excluded.key_version, rev = excluded.rev,
    state = excluded.state, sealed = excluded.sealed
), collection AS (
  INSERT INTO bundoc.collections AS c (project, token, first_seq, key_version, name, documents, bytes)
  SELECT $1, token, first_seq, $3::integer, name, documents, bytes
  FROM unnest($11::bytea[], $21::bigint[], $12::bytea[], $13::bigint[], $14::bigint[])
    AS r(token, first_seq, name, documents, bytes)
  ON CONFLICT (project, token) DO UPDATE SET documents = c.documents + excluded.documents,
    bytes = c.bytes + excluded.bytes, key_version = excluded.key_version, name = excluded.name
), version AS (
  UPDATE bundoc.key_versions AS v SET documents = v.documents + r.documents
  FROM unnest($15::integer[], $16::bigint[]) AS r(version, documents)
  WHERE v.project = $1 AND v.version = r.version
), used AS (
  INSERT INTO bundoc.used_keys AS u (project, token, at_ms, key_version, answer)
  SELECT $1, token, at_ms, $3::integer, answer FROM unnest($17::bytea[], $18::bigint[], $19::bytea[]) AS r(token, at_ms, answer)
  ON CONFLICT (project, token) DO UPDATE SET at_ms = excluded.at_ms, key_version = excluded.key_version, answer = excluded.answer
), committed AS (
  INSERT INTO bundoc.commits (project, id) VALUES ($1, $20::uuid)
)${more}
UPDATE bundoc.heads SET seq = $10::bigint, index_seq = CASE WHEN index_seq IS NOT NULL THEN $10::bigint END WHERE project = $1`,
  };
}

const WRITE_GROUP = writeGroup('bundoc-write-group-2', '');
const WRITE_INDEXED_GROUP = writeGroup('bundoc-write-indexed-group-2', ENTRIES);

/** Names of collections, sealed: the same for as long as the project is open, so each is sealed once. */
export type SealedNames = Map<string, Buffer>;

/**
 * Everything that one group commit writes, in one statement: seals every document, into the one buffer that is sent. The bytes of all documents come
 * as one parameter, cut apart by the server: an array of them would be sent as hexadecimal text.
 */
export function writeOfGroup(
  { documents, usedKeys, seq }: Pick<DecidedGroup, 'documents' | 'usedKeys' | 'seq'>,
  place: { readonly project: string; readonly commitId: string },
  {
    cipher,
    rows,
    names,
  }: { readonly cipher: ProjectCipher; readonly rows: RowCipher; readonly names: SealedNames },
): { readonly statement: Statement; readonly values: unknown[] } {
  const sealedBytes = documents.reduce((sum, { state }) => sum + state.size + ROW_BYTES, 0);
  const writer = new ByteWriter(sealedBytes);
  const columns = { at: [] as number[], state: [] as number[], sealed: [] as number[] };
  for (const document of documents) {
    const { state } = document;
    columns.at.push(writer.length + 1);
    writeRow(writer, document, { cipher, rows });
    columns.state.push(writer.length - (columns.at.at(-1) as number) + 1 - HEAD_BYTES - state.size);
    columns.sealed.push(state.size);
  }
  const collections = changesOfCollections(documents);
  const versions = changesOfVersions(documents);
  const tokens = [...collections.keys()].map((name) => rows.collectionToken(name));
  const used = usedKeys.map((key) => ({ ...key, token: rows.usedKeyToken(key.key) }));
  const values = [
    place.project,
    writer.finish(),
    rows.version,
    ...[columns.at, columns.state, columns.sealed],
    documents.map(({ state }) => state.seq),
    documents.map(({ state }) => state.createdSeq),
    documents.map(({ state }) => state.deletedMs),
    seq,
    tokens,
    [...collections.keys()].map((name, at) => sealedName(names, rows, tokens[at] as Buffer, name)),
    [...collections.values()].map((change) => change.documents),
    [...collections.values()].map((change) => change.bytes),
    [...versions.keys()],
    [...versions.values()],
    used.map(({ token }) => token),
    used.map(({ atMs }) => atMs),
    used.map((one) => rows.sealUsedKey(one.token, one)),
    place.commitId,
    [...collections.values()].map((change) => change.firstSeq),
  ];
  const indexed = documents.filter(({ entries }) => entries !== undefined);
  if (indexed.length === 0) return { statement: WRITE_GROUP, values };
  return { statement: WRITE_INDEXED_GROUP, values: [...values, ...entriesOfGroup(indexed, rows)] };
}

/** Names of the documents that may have entries, then columns of all entries that they are to have. */
function entriesOfGroup(documents: readonly Decided[], rows: RowCipher): unknown[] {
  const columns = {
    index: [] as number[],
    token: [] as Buffer[],
    createdSeq: [] as number[],
    name: [] as Buffer[],
  };
  for (const { state, entries = [] } of documents)
    for (const entry of entries)
      for (const token of tokensOf(entry, rows)) {
        columns.index.push(entry.index.id);
        columns.token.push(Buffer.from(token, 'hex'));
        columns.createdSeq.push(state.createdSeq);
        columns.name.push(state.fileName);
      }
  const present = documents.filter(({ former }) => former !== undefined);
  return [present.map(({ state }) => state.fileName), ...Object.values(columns)];
}

/** `name(16) | collection token(16) | revision(12) | sealed state | sealed document`. */
function writeRow(
  writer: ByteWriter,
  { state, text, sealed }: Decided,
  { cipher, rows }: { readonly cipher: ProjectCipher; readonly rows: RowCipher },
): void {
  writer.raw(state.fileName, 0, NAME_BYTES).raw(rows.collectionToken(state.collection)).raw(state.rev);
  writer.raw(rows.sealState(state));
  if (sealed !== undefined) writer.raw(sealed);
  if (text !== undefined)
    cipher.sealDocument(state.fileName.toString('hex'), text, writer.reserve(state.size));
}

function sealedName(names: SealedNames, rows: RowCipher, token: Buffer, name: string): Buffer {
  const known = names.get(name);
  if (known !== undefined) return known;
  const sealed = rows.sealCollectionName(token, name);
  names.set(name, sealed);
  return sealed;
}

interface CollectionChange {
  /** Of the first of its documents; counts for a collection that is new. */
  firstSeq: number;
  documents: number;
  bytes: number;
}

function changesOfCollections(documents: readonly Decided[]): Map<string, CollectionChange> {
  const changes = new Map<string, CollectionChange>();
  for (const { state, former } of documents) {
    const change = changes.get(state.collection) ?? { firstSeq: state.seq, documents: 0, bytes: 0 };
    change.firstSeq = Math.min(change.firstSeq, state.seq);
    change.documents += Number(state.deletedMs === 0) - Number(former?.deletedMs === 0);
    change.bytes += state.size - (former?.size ?? 0);
    changes.set(state.collection, change);
  }
  return changes;
}

function changesOfVersions(documents: readonly Decided[]): Map<number, number> {
  const changes = new Map<number, number>();
  const add = (version: number, change: number) => changes.set(version, (changes.get(version) ?? 0) + change);
  for (const { state, former } of documents) {
    if (former?.deletedMs === 0) add(former.keyVersion, -1);
    if (state.deletedMs === 0) add(state.keyVersion, 1);
  }
  return changes;
}
