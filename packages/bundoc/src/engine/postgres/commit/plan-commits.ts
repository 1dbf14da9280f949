import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type CommitDraft, type CommitOutcome, planCommits } from '../../commit/commit-plan.ts';
import type { Quota, Usage } from '../../commit/quota.ts';
import type { WaitingCommit } from '../../port/port.ts';
import type { DocumentState, IdempotencyRecord } from '../../port/state.ts';
import type { GroupIndexContext } from '../indexes/group-index-context.ts';
import type { DocumentEntries } from '../indexes/index-rows.ts';

/** A waiting commit, with the names of its documents. */
export interface QueuedCommit extends WaitingCommit {
  /** The document's name for each write, in hex. */
  readonly names: readonly string[];
  readonly subject: string;
  readonly queuedMs: number;
}

/** The rows of a project that a group's commits need, read under the project's lock. */
export interface PreState {
  /** The position of the last commit. */
  readonly seq: number;
  readonly indexVersion: number;
  /** The sealed count of the current key version; undefined where the seals are counted already. */
  readonly seals: Buffer | null | undefined;
  /** Number of seals that the key version may still make. */
  readonly sealsLeft: number;
  /** By name, including tombstones. */
  readonly states: ReadonlyMap<string, DocumentState>;
  /** By idempotency key, without expired ones. */
  readonly idempotencyRecords: ReadonlyMap<string, IdempotencyRecord>;
  /** The project's usage; undefined if it is not needed. */
  readonly usage?: Usage | undefined;
}

/** The last state of a document that a group writes. */
export interface PlannedRow {
  readonly state: DocumentState;
  /** The document's state in the database. */
  readonly former: DocumentState | undefined;
  /** The text to seal; undefined for a delete, and for a document that is already sealed. */
  readonly text: Buffer | undefined;
  readonly sealed?: Buffer | undefined;
  /** All of its entries in the indexes of its collection; undefined without indexes. */
  readonly entries?: readonly DocumentEntries[] | undefined;
}

export interface GroupPlan {
  /**
   * One for each planned commit; later commits belong to another transaction. They are answered only after
   * the transaction took effect, because refusals, too, may depend on its other commits.
   */
  readonly outcomes: readonly CommitOutcome<readonly DocumentEntries[]>[];
  /** Each document once. */
  readonly documents: readonly PlannedRow[];
  readonly idempotencyRecords: readonly IdempotencyRecord[];
  readonly seq: number;
}

/** Plans the commits of one project in a transaction. It is deterministic. */
export function planGroup(
  group: readonly QueuedCommit[],
  known: PreState,
  drafts: readonly CommitDraft[],
  parts: {
    readonly cipher: ProjectCipher;
    readonly indexing: GroupIndexContext;
    readonly quota?: Quota | undefined;
  },
): GroupPlan {
  const { cipher, indexing, quota } = parts;
  indexing.begin();
  const { outcomes: planned, seq } = planCommits<QueuedCommit, readonly DocumentEntries[]>(group, drafts, {
    seq: known.seq,
    sealsLeft: known.sealsLeft,
    usage: known.usage,
    quota,
    indexing,
    keyVersion: cipher.version,
    keyOf: ({ names }, at) => names[at] as string,
    stateOf: (_ref, name) => known.states.get(name),
    fileNameOf: (_ref, name) => name,
    idempotencyRecordOf: (key) => known.idempotencyRecords.get(key),
  });
  const outcomes = indexing.isCut ? planned.slice(0, -1) : planned;
  const accepted = outcomes.filter((outcome) => outcome.kind === 'accepted');
  const last = new Map(accepted.flatMap(({ writes }) => writes.map((write) => [write.key, write])));
  const documents = Array.from(last, ([name, { state, text, entries }]) => ({
    state,
    text,
    entries,
    former: known.states.get(name),
  }));
  const idempotencyRecords = accepted.flatMap(({ idempotencyRecord }) => idempotencyRecord ?? []);
  return { outcomes, documents, idempotencyRecords, seq };
}
