import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type CommitDraft, type CommitOutcome, planCommits } from '../../commit-plan.ts';
import type { WaitingCommit } from '../../port.ts';
import type { Quota, Usage } from '../../quota.ts';
import type { DocumentState, IdempotencyRecord } from '../../state.ts';
import type { BlindEntries } from '../indexes/blind-index.ts';
import type { GroupIndexContext } from '../indexes/group-index-context.ts';

/** A commit that waits, with the names of what it writes. */
export interface QueuedCommit extends WaitingCommit {
  /** Of each write's document, in hex. */
  readonly names: readonly string[];
  readonly subject: string;
  readonly queuedMs: number;
}

/**
 * What the database has of a project, as far as its commits in a group ask for it, under the project's lock.
 */
export interface PreState {
  /** Of the last commit. */
  readonly seq: number;
  readonly indexVersion: number;
  /** The sealed count of the current key version; undefined where its row is missing. */
  readonly seals: Buffer | null | undefined;
  /** Seals that the key version may still make. */
  readonly sealsLeft: number;
  /** By name, tombstones too. */
  readonly states: ReadonlyMap<string, DocumentState>;
  /** By idempotency key, the ones that are still remembered. */
  readonly idempotencyRecords: ReadonlyMap<string, IdempotencyRecord>;
  /** What the project holds; undefined when nobody asked. */
  readonly usage?: Usage | undefined;
}

/** The last state of a document that a group writes. */
export interface PlannedRow {
  readonly state: DocumentState;
  /** What the database has of it. */
  readonly former: DocumentState | undefined;
  /** To be sealed; undefined for a delete, and for what is sealed already. */
  readonly text: Buffer | undefined;
  readonly sealed?: Buffer | undefined;
  /** All that it has in the indexes of its collection; undefined where there are none. */
  readonly entries?: readonly BlindEntries[] | undefined;
}

export interface GroupPlan {
  /**
   * Of each commit that is planned; those behind them are for another transaction. Nobody is answered before
   * the transaction has taken effect: refusals, too, may depend on what other commits of it write.
   */
  readonly outcomes: readonly CommitOutcome<readonly BlindEntries[]>[];
  /** Each document once. */
  readonly documents: readonly PlannedRow[];
  readonly idempotencyRecords: readonly IdempotencyRecord[];
  readonly seq: number;
}

/** Decides the commits of one project in a transaction. The same input gives the same plan. */
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
  const { outcomes: planned, seq } = planCommits<QueuedCommit, readonly BlindEntries[]>(group, drafts, {
    ...{ seq: known.seq, sealsLeft: known.sealsLeft, usage: known.usage, quota, indexing },
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
    ...{ state, text, entries, former: known.states.get(name) },
  }));
  const idempotencyRecords = accepted.flatMap(({ idempotencyRecord }) => idempotencyRecord ?? []);
  return { outcomes, documents, idempotencyRecords, seq };
}
