import { AppError } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { DocumentRef } from '../../../crypto/stored-text.ts';
import type { Quota } from '../../commit/quota.ts';
import type { DocumentState, IdempotencyRecord } from '../../port/state.ts';
import type { BoundStatement, Row, Statement } from '../database/database.ts';
import { numberArray, textArray } from '../database/parameters.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { clearStateOf, orUndefined, ROW_COLUMNS, readStateRow, requireUpTo } from '../rows/rows.ts';
import { SEALED_COUNT, type SealCounter } from '../rows/seal-counter.ts';
import { MustReopen } from './must-reopen.ts';
import type { PreState, QueuedCommit } from './plan-commits.ts';

const HEADS = 'SELECT project, seq, key_version, index_version FROM bundoc.heads';
/** Skips heads that other transactions hold: this one never waits for a head while it holds another. */
const LOCK_HEADS: Statement = {
  name: 'bundoc-lock-heads-1',
  text: `${HEADS} WHERE project = ANY ($1::text[]) FOR UPDATE SKIP LOCKED`,
};
/** A transaction with a single head may wait for it. */
const LOCK_HEAD: Statement = {
  name: 'bundoc-lock-head-1',
  text: `${HEADS} WHERE project = ANY ($1::text[]) FOR UPDATE`,
};
const SEALS: Statement = {
  name: 'bundoc-group-seals-1',
  text: wanted(
    '$1::text[], $2::integer[]',
    'project, version',
    `SELECT ${SEALED_COUNT} FROM bundoc.key_versions AS v WHERE v.project = wanted.project AND v.version = wanted.version LIMIT 1`,
  ),
};
/** Looks up each name separately: without statistics of a project, the planner would scan all of it. */
const STATES: Statement = {
  name: 'bundoc-group-states-1',
  text: wanted(
    '$1::text[]',
    'project',
    `SELECT ${ROW_COLUMNS} FROM bundoc.documents
     WHERE documents.project = wanted.project AND name = substr($2::bytea, 16 * wanted.place::integer - 15, 16) LIMIT 1`,
  ),
};
const USED_KEYS: Statement = {
  name: 'bundoc-group-used-keys-1',
  text: wanted(
    '$1::text[]',
    'project',
    `SELECT token, at_ms, key_version, answer FROM bundoc.used_keys
     WHERE used_keys.project = wanted.project AND token = substr($2::bytea, 16 * wanted.place::integer - 15, 16) LIMIT 1`,
  ),
};
const USAGE: Statement = {
  name: 'bundoc-group-usage-1',
  text: wanted(
    '$1::text[]',
    'project',
    `SELECT coalesce(sum(documents), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM bundoc.collections
     WHERE collections.project = wanted.project`,
  ),
};

/** Returns the projects that exist, locked or not. */
export const HEADS_PRESENT: Statement = {
  name: 'bundoc-heads-present-1',
  text: 'SELECT project FROM bundoc.heads WHERE project = ANY ($1::text[])',
};

/** Looks up each key separately. A row begins with its index in the arrays, from 1. */
function wanted(arrays: string, columns: string, row: string): string {
  return `SELECT wanted.place, found.* FROM unnest(${arrays}) WITH ORDINALITY AS wanted (${columns}, place)
    CROSS JOIN LATERAL (${row}) AS found`;
}

/** Positions in the commit order have 48 bits. A group uses fewer than remain after this one. */
const SEQ_MAX = 2 ** 48 - 2 ** 20;

/** The part of a committing project that its pre-state needs. */
export interface LoadedProject {
  readonly project: string;
  readonly cipher: ProjectCipher;
  readonly rows: RowCipher;
  readonly seals: SealCounter;
  readonly clock: Clock;
  readonly quota?: Quota | undefined;
  readonly onIntegrityError: (name: string) => void;
}

/** A project's commits in one transaction. */
export interface GroupMember<P extends LoadedProject = LoadedProject> {
  readonly project: P;
  readonly commits: readonly QueuedCommit[];
}

/** The first reads of a transaction: pipelined statements, and what they ask for. */
export interface PreStateQuery {
  /** For heads and names, and for each of the other arrays below that is not empty, in their order. */
  readonly statements: readonly BoundStatement[];
  /** Member and name, or idempotency key, for each index in the statements' arrays. */
  readonly names: readonly (readonly [member: number, name: string])[];
  readonly keys: readonly (readonly [member: number, key: string])[];
  /** Members that make more seals than are counted, and members with a quota. */
  readonly sealing: readonly number[];
  readonly counted: readonly number[];
}

/**
 * The first reads of a transaction. It locks the heads of its projects. Later statements see everything
 * committed before the locks; they read the documents, idempotency keys, seals and counts that the commits
 * need.
 *
 * @param mayWait whether to wait for the head, with a single project.
 */
export function preStateQuery(members: readonly GroupMember[], mayWait: boolean): PreStateQuery {
  const projects = textArray(members.map(({ project }) => project.project));
  const names = members.flatMap(({ commits }, member) =>
    Array.from(new Set(commits.flatMap((commit) => commit.names)), (name) => [member, name] as const),
  );
  const keys = members.flatMap(({ commits }, member) =>
    commits.flatMap(({ options: { idempotency } }) =>
      idempotency === undefined ? [] : [[member, idempotency.key] as const],
    ),
  );
  const sealing = membersWhere(members, sealsMore);
  const counted = membersWhere(members, ({ project: { quota } }) => quota !== undefined);
  const projectsOf = (places: readonly number[]) =>
    textArray(places.map((member) => projectAt(members, member).project));
  const statements: BoundStatement[] = [
    { statement: mayWait ? LOCK_HEAD : LOCK_HEADS, values: [projects] },
    {
      statement: STATES,
      values: [
        projectsOf(names.map(([member]) => member)),
        Buffer.from(names.map(([, name]) => name).join(''), 'hex'),
      ],
    },
  ];
  if (keys.length > 0) {
    const tokens = keys.map(([member, key]) => projectAt(members, member).rows.idempotencyToken(key));
    const values = [projectsOf(keys.map(([member]) => member)), Buffer.concat(tokens)];
    statements.push({ statement: USED_KEYS, values });
  }
  if (sealing.length > 0) {
    const versions = sealing.map((member) => projectAt(members, member).rows.version);
    statements.push({ statement: SEALS, values: [projectsOf(sealing), numberArray(versions)] });
  }
  if (counted.length > 0) statements.push({ statement: USAGE, values: [projectsOf(counted)] });
  return { statements, names, keys, sealing, counted };
}

function membersWhere(members: readonly GroupMember[], is: (member: GroupMember) => boolean): number[] {
  return [...members.keys()].filter((at) => is(members[at] as GroupMember));
}

/** Whether its commits may make more seals than are counted. */
function sealsMore({ project, commits }: GroupMember): boolean {
  return !project.seals.covers(commits.reduce((sum, { writes }) => sum + writes.length, 0));
}

function projectAt(members: readonly GroupMember[], at: number): LoadedProject {
  return (members[at] as GroupMember).project;
}

/** The rows of one project that a {@link PreStateQuery} has found. */
export interface FoundRows {
  /** Undefined when another transaction holds the project's head, or the project does not exist. */
  head: Row | undefined;
  /** Whether its count of seals was read. */
  isSealingMore: boolean;
  seals: Buffer | null | undefined;
  readonly states: Row[];
  /** By idempotency key. */
  readonly idempotencyRecords: Map<string, Row>;
  usage: Row | undefined;
}

/** Assigns the rows to the members that asked for them. */
export function foundRows(
  members: readonly GroupMember[],
  { names, keys, sealing, counted }: PreStateQuery,
  [heads = [], states = [], ...others]: readonly (readonly Row[])[],
): FoundRows[] {
  const left = others.values();
  const next = (asked: readonly unknown[]) => (asked.length > 0 ? (left.next().value ?? []) : []);
  const byProject = new Map(heads.map((row) => [row[0] as string, row]));
  const found = members.map(
    ({ project }): FoundRows => ({
      head: byProject.get(project.project),
      isSealingMore: false,
      seals: undefined,
      states: [],
      idempotencyRecords: new Map(),
      usage: undefined,
    }),
  );
  for (const [place, ...state] of states as [number, ...unknown[]][])
    found[names[place - 1]?.[0] as number]?.states.push(state);
  for (const [place, ...row] of next(keys) as [number, ...unknown[]][]) {
    const [member, key] = keys[place - 1] as readonly [number, string];
    found[member]?.idempotencyRecords.set(key, row);
  }
  for (const at of sealing) (found[at] as FoundRows).isSealingMore = true;
  for (const [place, sealed] of next(sealing) as [number, Buffer | null][])
    (found[sealing[place - 1] as number] as FoundRows).seals = sealed;
  for (const [place, ...row] of next(counted) as [number, ...unknown[]][])
    (found[counted[place - 1] as number] as FoundRows).usage = row;
  return found;
}

/**
 * Opens the rows of a project. A document with an undecryptable row can still be replaced and deleted; the
 * clear columns then stand for its state. An undecryptable idempotency key counts as forgotten.
 *
 * @throws VersionUnknown; MustReopen when a later version of the key is in use; OpenError for an
 *   undecryptable count of seals; AppError `integrity_error` for an impossible head, and an older one.
 */
export function openPreState(
  { project, commits }: GroupMember,
  { head, isSealingMore, seals, states, idempotencyRecords, usage }: FoundRows & { readonly head: Row },
): PreState {
  const { rows, clock, onIntegrityError } = project;
  const [, seq, keyVersion, indexVersion] = head as unknown as [string, number, number, number];
  // The column is not sealed, so it may have any value.
  if (!Number.isInteger(seq) || seq < 0 || seq > SEQ_MAX)
    throw new AppError('integrity_error', {
      cause: new Error(`heads.seq is ${seq}, which is no place of a commit`),
    });
  if (keyVersion > project.cipher.version)
    throw new MustReopen('another node has brought in a new version of the key');
  const known = {
    seq,
    indexVersion,
    seals,
    sealsLeft: project.seals.reserved + (isSealingMore ? project.seals.left(seals) : 0),
    states: new Map<string, DocumentState>(),
    idempotencyRecords: new Map<string, IdempotencyRecord>(),
    usage: usage && { documents: Number(usage[0]), bytes: Number(usage[1]) },
  };
  for (const row of states) {
    const name = (row[0] as Buffer).toString('hex');
    const state = orUndefined(() => readStateRow(row, rows));
    if (state === undefined) onIntegrityError(name);
    else requireUpTo(seq, state);
    known.states.set(name, state ?? clearStateOf(row, refOf(commits, name), clock.now()));
  }
  for (const [key, row] of idempotencyRecords) {
    const [token, atMs, version, answer] = row as [Buffer, number, number, Buffer];
    const idempotencyRecord = orUndefined(() => {
      if (!rows.idempotencyToken(key).equals(token)) throw new OpenError();
      return rows.openIdempotencyRecord(token, version, answer);
    });
    if (idempotencyRecord !== undefined) known.idempotencyRecords.set(key, { ...idempotencyRecord, atMs });
  }
  return known;
}

function refOf(commits: readonly QueuedCommit[], name: string): DocumentRef {
  for (const { writes, names } of commits) {
    const write = writes[names.indexOf(name)];
    if (write !== undefined) return write.ref;
  }
  throw new Error('a row was read that nobody asked for');
}
