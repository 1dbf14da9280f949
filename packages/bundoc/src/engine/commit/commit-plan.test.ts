import { AppError } from '@bundoc/shared/contract/app-error';
import { SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import { describe, expect, it } from 'vitest';
import { put, ref, remove } from '../../testing/writes.ts';
import { GroupUniqueness } from '../indexes/uniqueness.ts';
import {
  COMMIT_BYTES_MAX,
  COMMITS_WAITING_MAX,
  type CommitOptions,
  IDEMPOTENCY_TTL_MS,
  type Precondition,
  type Write,
} from '../port/port.ts';
import { PreconditionsFailed } from '../port/precondition.ts';
import { type DocumentState, type IdempotencyRecord, REV_BYTES } from '../port/state.ts';
import {
  admit,
  type CommitDraft,
  type PlanContext,
  planCommits,
  WRITE_OVERHEAD_BYTES,
} from './commit-plan.ts';

const NOW_MS = Date.UTC(2026, 0, 31, 12);
const LAST_SEQ = 7;
const KEY_VERSION = 3;
const OLD_REV = 'aa'.repeat(REV_BYTES);

interface Commit {
  readonly writes: readonly Write[];
  readonly options: CommitOptions;
}

type Context = PlanContext<Commit, string>;

/** A document of version 1 that was created and changed long ago; deleted, it is a tombstone. */
const stored = (id: string, deletedMs = 0): DocumentState => ({
  ...ref(id),
  fileName: Buffer.alloc(16, id),
  seq: 5,
  createdSeq: 2,
  createdMs: NOW_MS - 60_000,
  rev: Buffer.from(OLD_REV, 'hex'),
  keyVersion: 1,
  size: deletedMs === 0 ? 100 : 0,
  deletedMs,
});

/** A document's value in the unique index: its text after `"u":`. */
const uniqueValue = (text: Buffer | undefined) => /"u":"(\w*)"/.exec(text?.toString() ?? '')?.[1] ?? '';

interface Before {
  readonly states?: readonly DocumentState[];
  readonly idempotencyRecords?: readonly IdempotencyRecord[];
  readonly sealsLeft?: number;
  readonly quota?: Context['quota'];
  readonly usage?: Context['usage'];
  /** Ids by their value in the unique index. */
  readonly unique?: Readonly<Record<string, string>>;
  /** Number of commits after which the group ends. */
  readonly commitsMax?: number;
}

function contextOf(before: Before): Context {
  const { states = [], idempotencyRecords = [], unique = {}, commitsMax = Number.POSITIVE_INFINITY } = before;
  const index = { spec: { name: 'u', fields: ['u'], unique: true } };
  const uniqueness = new GroupUniqueness<typeof index>((_, key) => unique[key] ?? []);
  let commits = 0;
  return {
    seq: LAST_SEQ,
    keyVersion: KEY_VERSION,
    sealsLeft: before.sealsLeft ?? Number.POSITIVE_INFINITY,
    quota: before.quota,
    usage: before.usage,
    keyOf: ({ writes }, at) => writes[at]?.ref.id ?? '',
    stateOf: ({ id }) => states.find((state) => state.id === id),
    fileNameOf: ({ id }) => Buffer.alloc(16, id).toString('hex'),
    idempotencyRecordOf: (key) => idempotencyRecords.find((used) => used.key === key),
    indexing: {
      commit: () => {
        if (commits++ === commitsMax) return undefined;
        const { write, check, accept } = uniqueness.commit();
        return {
          write: ({ at, state }, value) => write(state.id, [[index, value === '' ? [] : [value]]], at),
          check,
          accept,
        };
      },
      entriesOf: (_write, { text }) => uniqueValue(text),
    },
  };
}

const commit = (...writes: readonly Write[]): Commit => ({ writes, options: {} });
const under = (key: string, request: string, ...writes: readonly Write[]): Commit => ({
  writes,
  options: { idempotency: { key, request } },
});
const when = (write: Write, precondition: Precondition): Write => ({ ...write, precondition });
const revision = (rev: string): Precondition => ({ kind: 'revision', anyOf: [rev] });
/** Revisions of the drafts differ by commit and write. */
const revOf = (place: number, at: number) => Buffer.alloc(REV_BYTES, 16 * place + at);
const draftOf = ({ writes }: Commit, place: number): CommitDraft => ({
  nowMs: NOW_MS + place,
  revs: writes.map((_, at) => revOf(place, at)),
});

function plan(before: Before, commits: readonly Commit[]) {
  return planCommits(commits, commits.map(draftOf), contextOf(before));
}

/** The outcome of each commit: its answers in short, or the code of its refusal. */
function answersOf(before: Before, commits: readonly Commit[]): string[] {
  return plan(before, commits).outcomes.map((outcome) => {
    if (outcome.kind === 'refused')
      return outcome.error instanceof AppError ? outcome.error.code : String(outcome.error);
    const written = outcome.writes.length;
    const answers = outcome.results.map(({ created, metadata }) =>
      metadata === undefined ? 'deleted' : created ? 'created' : 'replaced',
    );
    return written === answers.length ? answers.join() : `${answers.join()} again`;
  });
}

const living = stored('a');
const gone = stored('a', NOW_MS - 30_000);
const usedAt = (atMs: number): IdempotencyRecord => ({
  key: 'k',
  request: 'r',
  atMs,
  answer: '[{"created":true}]',
});
const quota = { documentsMax: 2, bytesMax: 1_000 };
const full = { documents: 2, bytes: 200 };
const most = { documents: 1, bytes: 900 };
const text = (bytes: number) => JSON.stringify({ t: 'x'.repeat(bytes) });

/** Each row: the guarantee, the state before, the commits, and their outcomes. */
const TABLE: readonly [string, Before, readonly Commit[], readonly string[]][] = [
  [
    'a commit that is refused for a unique value uses up no quota',
    { unique: { x: 'z' }, quota, usage: { documents: 1, bytes: 100 } },
    [commit(put('a', '{"u":"x"}')), commit(put('b', '{"u":"y"}'))],
    ['unique_violation', 'created'],
  ],
  ['a document is created', {}, [commit(put('a', '{}'))], ['created']],
  ['a living document is replaced', { states: [living] }, [commit(put('a', '{}'))], ['replaced']],
  ['a deleted document is created again', { states: [gone] }, [commit(put('a', '{}'))], ['created']],
  ['a living document is deleted', { states: [living] }, [commit(remove('a'))], ['deleted']],
  ['an absent document cannot be deleted', {}, [commit(remove('a'))], ['document_not_found']],
  ['a deleted document cannot be deleted', { states: [gone] }, [commit(remove('a'))], ['document_not_found']],
  [
    'a commit sees the effects of all accepted ones before it',
    {},
    [commit(put('a', '{}'), remove('b')), commit(remove('a')), commit(put('a', '{}')), commit(remove('a'))],
    ['document_not_found', 'document_not_found', 'created', 'deleted'],
  ],
  [
    'a write sees the earlier writes of its commit',
    {},
    [commit(put('a', '{}'), put('a', '{}'), remove('a'), put('a', '{}'))],
    ['created,replaced,deleted,created'],
  ],
  [
    'a precondition may require absence',
    { states: [living] },
    [commit(when(put('a', '{}'), { kind: 'absent' })), commit(when(put('b', '{}'), { kind: 'absent' }))],
    ['precondition_failed', 'created'],
  ],
  [
    'a precondition may require presence',
    { states: [living] },
    [commit(when(put('a', '{}'), { kind: 'present' })), commit(when(put('b', '{}'), { kind: 'present' }))],
    ['replaced', 'precondition_failed'],
  ],
  [
    'a precondition may require a revision, which an earlier commit may have replaced',
    { states: [living] },
    [
      commit(when(put('a', '{}'), revision(OLD_REV))),
      commit(when(put('a', '{}'), revision(OLD_REV))),
      commit(when(remove('a'), revision(revOf(0, 0).toString('hex')))),
    ],
    ['replaced', 'precondition_failed', 'deleted'],
  ],
  [
    'a deleted document counts as absent in preconditions',
    { states: [gone] },
    [commit(when(put('a', '{}'), revision(OLD_REV))), commit(when(put('a', '{}'), { kind: 'absent' }))],
    ['precondition_failed', 'created'],
  ],
  [
    'a repetition under an idempotency key within a day gets the first answer',
    { idempotencyRecords: [usedAt(NOW_MS - IDEMPOTENCY_TTL_MS + 1)] },
    [under('k', 'r', put('a', '{}'))],
    ['deleted again'],
  ],
  [
    'an idempotency key expires after a day',
    { idempotencyRecords: [usedAt(NOW_MS - IDEMPOTENCY_TTL_MS)] },
    [under('k', 'other', put('a', '{}'))],
    ['created'],
  ],
  [
    'another request under an idempotency key is refused',
    { idempotencyRecords: [usedAt(NOW_MS)] },
    [under('k', 'other', put('a', '{}'))],
    ['idempotency_mismatch'],
  ],
  [
    'a refused commit in the same group does not use an idempotency key',
    {},
    [
      under('k', 'r', remove('a')),
      under('k', 'r', put('a', '{}')),
      under('k', 'r', put('a', '{}')),
      under('k', 'other', put('a', '{}')),
    ],
    ['document_not_found', 'created', 'created again', 'idempotency_mismatch'],
  ],
  [
    'a quota of documents allows another one only after a deletion',
    { states: [living], quota, usage: full },
    [commit(put('b', '{}')), commit(put('a', '{}')), commit(remove('a'), put('b', '{}'))],
    ['quota_exceeded', 'replaced', 'deleted,created'],
  ],
  [
    'a quota of bytes is exact, and does not count refused commits',
    { states: [living], quota: { ...quota, documentsMax: 0 }, usage: most },
    [commit(put('b', text(1_000))), commit(put('b', '{}')), commit(remove('a'))],
    ['quota_exceeded', 'quota_exceeded', 'deleted'],
  ],
  [
    'a unique value belongs to one document until that document frees it',
    { unique: { x: 'c' }, states: [stored('c')] },
    [
      commit(put('a', '{"u":"x"}')),
      commit(put('c', '{"u":"y"}')),
      commit(put('a', '{"u":"x"}')),
      commit(put('b', '{"u":"y"}')),
      commit(remove('a'), put('b', '{"u":"x"}')),
    ],
    ['unique_violation', 'replaced', 'created', 'unique_violation', 'deleted,created'],
  ],
  [
    'a refused commit takes no unique value',
    {},
    [commit(put('a', '{"u":"x"}'), remove('b')), commit(put('b', '{"u":"x"}'))],
    ['document_not_found', 'created'],
  ],
  [
    'the key seals no more documents than it may, and a deletion needs no seal',
    { sealsLeft: 2, states: [living] },
    [
      commit(put('b', '{}'), put('c', '{}'), put('d', '{}')),
      commit(put('b', '{}'), put('c', '{}')),
      commit(put('d', '{}')),
      commit(remove('a')),
    ],
    ['key_exhausted', 'created,created', 'key_exhausted', 'deleted'],
  ],
  [
    'a group ends where its indexes end it',
    { commitsMax: 2 },
    [commit(put('a', '{}')), commit(remove('b')), commit(put('c', '{}'))],
    ['created', 'document_not_found'],
  ],
];

describe('the plan of a group of commits', () => {
  it.each(TABLE)('decides that %s', (_shown, before, commits, expected) => {
    expect(answersOf(before, commits)).toEqual(expected);
  });

  it('assigns gapless numbers to the writes of accepted commits only', () => {
    const commits = [commit(put('a', '{}'), remove('b')), commit(put('a', '{}'), put('b', '{}'))];
    const { outcomes, seq } = plan({}, [...commits, under('k', 'r', remove('a'))]);
    const seqs = outcomes.map((one) =>
      one.kind === 'accepted' ? one.writes.map(({ state }) => state.seq) : [],
    );
    expect(seqs).toEqual([[], [LAST_SEQ + 1, LAST_SEQ + 2], [LAST_SEQ + 3]]);
    expect(seq).toBe(LAST_SEQ + 3);
  });

  it('keeps the creation time and the name of an existing document, and starts new ones for any other', () => {
    const before = { states: [living, stored('b', NOW_MS - 1)] };
    const [outcome] = plan(before, [commit(put('a', '{"n":1.10}'), put('b', '{}'), remove('a'))]).outcomes;
    if (outcome?.kind !== 'accepted') throw new Error('the commit is refused');
    const [replaced, created, deleted] = outcome.writes;
    const rev = revOf(0, 0).toString('hex');
    const times = `"_created":"2026-01-31T11:59:00.000Z","_updated":"2026-01-31T12:00:00.000Z"`;
    expect(replaced?.text?.toString()).toBe(
      `{"_id":"a","_collection":"notes","_rev":"${rev}",${times},"n":1.10}`,
    );
    expect(replaced?.state).toEqual({
      ...living,
      seq: LAST_SEQ + 1,
      rev: revOf(0, 0),
      keyVersion: KEY_VERSION,
      size: (replaced?.text?.length ?? 0) + SEAL_OVERHEAD_BYTES,
    });
    expect(created?.state).toMatchObject({ createdSeq: LAST_SEQ + 2, createdMs: NOW_MS, deletedMs: 0 });
    expect(deleted).toMatchObject({ text: undefined, state: { size: 0, deletedMs: NOW_MS, createdSeq: 2 } });
    expect(outcome.results[0]?.metadata).toMatchObject({ _id: 'a', _rev: rev });
  });

  it('records an answer under its idempotency key, with the time of the commit', () => {
    const [outcome] = plan({}, [under('k', 'r', put('a', '{}'))]).outcomes;
    if (outcome?.kind !== 'accepted') throw new Error('the commit is refused');
    const answer = JSON.stringify(outcome.results);
    expect(outcome.idempotencyRecord).toEqual({ key: 'k', request: 'r', atMs: NOW_MS, answer });
  });

  it('reports every write of a commit whose precondition fails, given the writes before the first failure', () => {
    const writes = [
      put('b', '{}'),
      when(put('a', '{}'), { kind: 'absent' }),
      when(put('b', '{}'), { kind: 'absent' }),
      when(put('c', '{}'), { kind: 'absent' }),
    ];
    const [outcome] = plan({ states: [living] }, [commit(...writes)]).outcomes;
    const error = outcome?.kind === 'refused' ? outcome.error : undefined;
    if (!(error instanceof PreconditionsFailed)) throw new Error('another refusal');
    expect(error.failed).toEqual([
      { index: 1, rev: OLD_REV },
      { index: 2, rev: revOf(0, 0).toString('hex') },
    ]);
  });

  it('is deterministic', () => {
    for (const [, before, commits] of TABLE) expect(plan(before, commits)).toEqual(plan(before, commits));
  });
});

describe('the admission of a commit', () => {
  const none = { commits: 0, bytes: 0 };
  const refusal = (code: string) => expect.objectContaining({ code });

  it('counts its documents and the overhead of each write', () => {
    expect(admit([put('a', '{"n":1}'), remove('b')], none)).toBe('"n":1'.length + 2 * WRITE_OVERHEAD_BYTES);
  });

  it('refuses a commit that is too large, or too many waiting ones', () => {
    const large = [put('a', text(COMMIT_BYTES_MAX))];
    expect(() => admit(large, none)).toThrow(refusal('payload_too_large'));
    const one = [put('a', '{}')];
    expect(() => admit(one, { ...none, commits: COMMITS_WAITING_MAX })).toThrow(refusal('overloaded'));
    expect(() => admit(one, { ...none, bytes: 2 * COMMIT_BYTES_MAX + 1 })).toThrow(refusal('overloaded'));
    expect(admit(one, { commits: COMMITS_WAITING_MAX - 1, bytes: 2 * COMMIT_BYTES_MAX })).toBeGreaterThan(0);
  });
});
