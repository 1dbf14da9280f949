import type { Clock } from '@bundoc/shared/clock';
import type { DocumentRef } from '../../cipher/stored-text.ts';
import type { DocumentState, UsedKey } from '../embedded/record.ts';
import type { Row } from './database.ts';
import type { Known, Waiting } from './decide.ts';
import type { RowCipher } from './row-cipher.ts';
import { clearStateOf, eachByName, orUndefined, ROW_COLUMNS, readStateRow } from './rows.ts';

/**
 * What a group commit reads as its transaction begins: the project's row, locked, then, by statements that see what was committed before the
 * lock was had, its documents and idempotency keys, and what it holds if that `counts`. Everything that is put into the text is hexadecimal or a project id.
 */
export function beginCommit(
  project: string,
  group: readonly Waiting[],
  rows: RowCipher,
  counts: boolean,
): string {
  const names = new Set(group.flatMap(({ names: own }) => own));
  const tokens = group.flatMap(({ options: { idempotency } }) =>
    idempotency === undefined ? [] : [rows.usedKeyToken(idempotency.key).toString('hex')],
  );
  const statements = [
    `SELECT seq, key_version, index_version FROM bundoc.heads WHERE project = '${project}' FOR UPDATE`,
    eachByName(
      byteaArray(names),
      `SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE project = '${project}' AND documents.name = wanted.one`,
    ),
  ];
  if (tokens.length > 0)
    statements.push(
      eachByName(
        byteaArray(tokens),
        `SELECT token, at_ms, key_version, answer FROM bundoc.used_keys
         WHERE project = '${project}' AND token = wanted.one`,
      ),
    );
  if (counts)
    statements.push(
      `SELECT coalesce(sum(documents), 0)::bigint, coalesce(sum(bytes), 0)::bigint
       FROM bundoc.collections WHERE project = '${project}'`,
    );
  return statements.join(';');
}

function byteaArray(hex: Iterable<string>): string {
  return `'{${[...hex].map((one) => `"\\\\x${one}"`).join(',')}}'::bytea[]`;
}

/** What {@link beginCommit} read. */
export interface ReadRows {
  readonly seq: number;
  readonly states: readonly Row[];
  readonly used: readonly Row[];
  /** Its documents and bytes, if they count. */
  readonly usage: Row | undefined;
}

export interface KnownPorts {
  readonly rows: RowCipher;
  readonly clock: Clock;
  readonly onIntegrityError: (name: string) => void;
}

/**
 * Opens what was read. A document whose row does not open can still be replaced and deleted; what its row says in the clear stands for its state
 * then. An idempotency key whose row does not open is as good as forgotten.
 *
 * @throws VersionUnknown.
 */
export function knownOf(
  group: readonly Waiting[],
  { seq, states, used, usage }: ReadRows,
  ports: KnownPorts,
): Known {
  const { rows, onIntegrityError } = ports;
  const known = {
    seq,
    states: new Map<string, DocumentState>(),
    usedKeys: new Map<string, UsedKey>(),
    usage: usage && { documents: Number(usage[0]), bytes: Number(usage[1]) },
  };
  for (const row of states) {
    const name = (row[0] as Buffer).toString('hex');
    const state = orUndefined(() => readStateRow(row, rows));
    if (state === undefined) onIntegrityError(name);
    known.states.set(name, state ?? clearStateOf(row, refOf(group, name), ports.clock.now()));
  }
  const byToken = new Map(used.map((row) => [(row[0] as Buffer).toString('hex'), row]));
  for (const { options } of byToken.size === 0 ? [] : group) {
    if (options.idempotency === undefined) continue;
    const { key } = options.idempotency;
    const token = rows.usedKeyToken(key);
    const row = byToken.get(token.toString('hex'));
    if (row === undefined) continue;
    const [, atMs, keyVersion, answer] = row as [Buffer, number, number, Buffer];
    const usedKey = orUndefined(() => rows.openUsedKey(token, keyVersion, answer));
    if (usedKey !== undefined) known.usedKeys.set(key, { ...usedKey, atMs });
  }
  return known;
}

function refOf(group: readonly Waiting[], name: string): DocumentRef {
  for (const { writes, names } of group) {
    const write = writes[names.indexOf(name)];
    if (write !== undefined) return write.ref;
  }
  throw new Error('a row was read that nobody asked for');
}
