import type { Draw } from './draw.ts';
import { type Cells, type Content, copyOf, idOf, TABLE_NAMES, type TableName } from './kms-database.ts';

/** What an act on rows may use. */
export interface RowActs {
  readonly draw: Draw;
  /** Earlier states of the tables, oldest first. */
  readonly copies: readonly Content[];
}

type Act = (content: Content, acts: RowActs) => string;

/** The tables that are attacked most. */
const TARGETS: readonly TableName[] = [
  ...(['audit', 'audit', 'audit', 'audit', 'keys', 'keys', 'key_versions', 'tokens', 'tokens'] as const),
];
const TARGETS_OF_ALL: readonly TableName[] = [...TARGETS, ...TARGETS, 'keks', 'installation'];

const seqOf = ({ seq }: Cells) => Number(seq?.replaceAll("'", ''));
const literal = (value: string | number, like: string | undefined) =>
  like?.startsWith("'") === false ? String(value) : `'${value}'`;
const rowsOf = (content: Content, table: TableName) => [...content[table].values()];
const chainOf = (content: Content) => rowsOf(content, 'audit').sort((a, b) => seqOf(a) - seqOf(b));
const isChange = ({ detail = '' }: Cells) => detail.includes('"revision":');

function put(content: Content, table: TableName, cells: Cells): void {
  content[table].set(idOf(table, cells), cells);
}

function drop(content: Content, table: TableName, cells: Cells | undefined): void {
  if (cells !== undefined) content[table].delete(idOf(table, cells));
}

/** Cuts the chain off before a record. */
function cutBefore(content: Content, first: number): void {
  for (const cells of rowsOf(content, 'audit')) if (seqOf(cells) >= first) drop(content, 'audit', cells);
}

function madeValue(draw: Draw, now: string | undefined): string {
  return draw.oneOf([
    "''",
    "'x'",
    "'{}'",
    '0',
    '1',
    '-1',
    '9007199254740991',
    'NULL',
    "'enabled'",
    now ?? '1',
  ]);
}

/** Replaces a table, or all of them, by an earlier copy. */
function replaceBy(content: Content, copy: Content, tables: readonly TableName[]): void {
  for (const table of tables) {
    content[table].clear();
    for (const [id, cells] of copy[table]) content[table].set(id, cells);
  }
}

/** Takes a key back to how an earlier copy had it. */
function keyOf(content: Content, copy: Content, name: string | undefined): void {
  const now = rowsOf(content, 'keys').find((cells) => cells['name'] === name);
  const then = rowsOf(copy, 'keys').find((cells) => cells['name'] === name);
  if (now === undefined || then === undefined) return;
  drop(content, 'keys', now);
  put(content, 'keys', then);
  for (const cells of rowsOf(content, 'key_versions'))
    if (cells['key_id'] === now['id']) drop(content, 'key_versions', cells);
  for (const cells of rowsOf(copy, 'key_versions'))
    if (cells['key_id'] === then['id']) put(content, 'key_versions', cells);
}

const ROW_ACTS: Readonly<Record<string, Act>> = {
  'an edited value': (content, { draw }) => {
    const table = draw.oneOf(TARGETS_OF_ALL);
    const cells = draw.maybeOf(rowsOf(content, table));
    if (cells === undefined) return '';
    const column = draw.oneOf(Object.keys(cells));
    const other = draw.maybeOf(rowsOf(content, table))?.[column];
    const value = draw.chance(0.5) ? other : madeValue(draw, cells[column]);
    drop(content, table, cells);
    put(content, table, { ...cells, [column]: value ?? 'NULL' });
    return `${table}.${column} of ${idOf(table, cells)}`;
  },
  'a row less': (content, { draw }) => {
    const table = draw.oneOf(TARGETS_OF_ALL);
    const cells = draw.maybeOf(rowsOf(content, table));
    drop(content, table, cells);
    return `${table} ${cells && idOf(table, cells)}`;
  },
  'records of the chain less': (content, { draw }) => {
    const chain = chainOf(content);
    const from = draw.below(chain.length);
    const gone = chain.slice(from, from + 1 + draw.below(4));
    for (const cells of gone) drop(content, 'audit', cells);
    return gone.map(seqOf).join();
  },
  'the end of the chain': (content, { draw }) => {
    const chain = chainOf(content);
    const first = seqOf(chain[Math.max(0, chain.length - 1 - draw.below(draw.chance(0.5) ? 3 : 30))] ?? {});
    cutBefore(content, first);
    return `from ${first}`;
  },
  'two rows swapped': (content, { draw }) => {
    const table = draw.oneOf(TARGETS);
    const [one, other] = [draw.maybeOf(rowsOf(content, table)), draw.maybeOf(rowsOf(content, table))];
    if (one === undefined || other === undefined || one === other) return '';
    const column = table === 'tokens' ? 'number' : draw.chance(0.5) ? 'name' : 'id';
    const key = column in one ? column : table === 'audit' ? 'seq' : 'version';
    drop(content, table, one);
    drop(content, table, other);
    put(content, table, { ...one, [key]: other[key] ?? 'NULL' });
    put(content, table, { ...other, [key]: one[key] ?? 'NULL' });
    return `${table} ${idOf(table, one)} and ${idOf(table, other)}`;
  },
  'an older table': (content, { draw, copies }) => {
    const table = draw.oneOf(TARGETS_OF_ALL);
    replaceBy(content, draw.oneOf(copies), [table]);
    return table;
  },
  'an older copy of everything': (content, { draw, copies }) => {
    replaceBy(content, draw.oneOf(copies), TABLE_NAMES);
    return '';
  },
  'an older key': (content, { draw, copies }) => {
    const name = draw.maybeOf(rowsOf(content, 'keys'))?.['name'];
    keyOf(content, draw.oneOf(copies), name);
    return String(name);
  },
  'an older token': (content, { draw, copies }) => {
    const cells = draw.maybeOf(rowsOf(draw.oneOf(copies), 'tokens'));
    if (cells !== undefined) put(content, 'tokens', cells);
    return String(cells?.['jti']);
  },
  'a row put back': (content, { draw, copies }) => {
    const table = draw.oneOf(TARGETS);
    const cells = draw.maybeOf(rowsOf(draw.oneOf(copies), table));
    if (cells !== undefined) put(content, table, cells);
    return `${table} ${cells && idOf(table, cells)}`;
  },
  'a record once more': (content, { draw }) => {
    const chain = chainOf(content);
    const cells = draw.maybeOf(chain);
    if (cells === undefined) return '';
    const seq = seqOf(chain.at(-1) ?? cells) + 1 + draw.below(3);
    put(content, 'audit', { ...cells, seq: literal(seq, cells['seq']) });
    return `${seqOf(cells)} as ${seq}`;
  },
  'a record disguised': (content, { draw }) => {
    const record = draw.maybeOf(
      chainOf(content).filter((cells) => isChange(cells) || cells['action'] === "'token.revoke'"),
    );
    if (record === undefined) return '';
    // The links of the chain stay.
    put(content, 'audit', { ...record, action: "'key.export'", detail: "'{}'" });
    return String(seqOf(record));
  },
  'a revoked token back': (content, { draw }) => {
    const record = draw.maybeOf(chainOf(content).filter(({ action }) => action === "'token.revoke'"));
    if (record === undefined) return '';
    if (draw.chance(0.5)) cutBefore(content, seqOf(record));
    else drop(content, 'audit', record);
    for (const cells of rowsOf(content, 'tokens')) put(content, 'tokens', { ...cells, revoked_at: 'NULL' });
    return `without ${seqOf(record)}`;
  },
  'a key back': (content, { draw, copies }) => {
    const record = draw.maybeOf(chainOf(content).filter(isChange));
    if (record === undefined) return '';
    const copy = draw.oneOf(copies);
    const latest = Math.max(
      ...rowsOf(copy, 'audit')
        .filter((cells) => cells['key'] === record['key'] && isChange(cells))
        .map(seqOf),
      0,
    );
    if (draw.chance(0.3)) cutBefore(content, latest + 1);
    else
      for (const cells of rowsOf(content, 'audit'))
        if (cells['key'] === record['key'] && isChange(cells) && seqOf(cells) > latest)
          drop(content, 'audit', cells);
    keyOf(content, copy, record['key']);
    return `${record['key']} as of ${latest}`;
  },
};

/** The state after a random act on rows, and what was done. */
export function rowAct(content: Content, acts: RowActs): { readonly after: Content; readonly told: string } {
  const after = copyOf(content);
  const kind = acts.draw.oneOf(Object.keys(ROW_ACTS));
  const told = ROW_ACTS[kind]?.(after, acts);
  return { after, told: `${kind} ${told}`.trim() };
}

/** The state of an older copy. */
export function olderCopy(
  _: Content,
  { draw, copies }: RowActs,
): { readonly after: Content; readonly told: string } {
  return { after: copyOf(draw.oneOf(copies)), told: 'an older copy of the whole store' };
}
