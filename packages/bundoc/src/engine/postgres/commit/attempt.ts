import { v7 as uuidv7 } from 'uuid';
import type { DocumentContent } from '../../../crypto/stored-text.ts';
import { type CommitDraft, draftsOf } from '../../commit/commit-plan.ts';
import type { Position } from '../../port/port.ts';
import type { Database, Transaction } from '../database/database.ts';
import { isOfDatabase } from '../database/database-error.ts';
import { textArray } from '../database/parameters.ts';
import { GROUP_ENTRIES_MAX, GroupIndexContext, lookUpHolders } from '../indexes/group-index-context.ts';
import type { IndexRows, PreparedKeys } from '../indexes/index-rows.ts';
import type { NextCount } from '../rows/seal-counter.ts';
import {
  type FoundRows,
  foundRows,
  type GroupMember,
  HEADS_PRESENT,
  type LoadedProject,
  openPreState,
  preStateQuery,
} from './load-prestate.ts';
import { ProjectGone } from './must-reopen.ts';
import { type GroupPlan, type PreState, planGroup, type QueuedCommit } from './plan-commits.ts';
import { type ProjectWrites, type SealedNames, writeOfGroup } from './write-group.ts';

/**
 * Maximum of look-ups in a transaction. Each refused commit can change what the commits behind it look up,
 * while all heads of the transaction are locked.
 */
export const LOOK_UPS_MAX = 8;

/** A project that is open on this node. */
export interface CommittingProject extends LoadedProject {
  readonly names: SealedNames;
  /** The indexes of one version, read under the project's lock. */
  indexesAsOf(version: number, transaction: Transaction): Promise<IndexRows>;
  /** The keys of a document in indexes that were computed before its commit. */
  readonly preparedOf: (content: DocumentContent) => PreparedKeys | undefined;
  /** Reports that commits up to `seq` have taken effect. Called before they are answered. */
  committed(seq: Position): void;
  /** Answers commits that have had no effect. Never throws. */
  refused(commits: readonly QueuedCommit[], error: unknown): void;
}

export type Member = GroupMember<CommittingProject>;

/** The outcome of one member's commits in a transaction. */
export type Outcome =
  | {
      readonly kind: 'planned';
      readonly plan: GroupPlan;
      /** Whether anything is written. */
      readonly isChanged: boolean;
      readonly count: NextCount | undefined;
    }
  | { readonly kind: 'refused'; readonly error: unknown }
  /** The transaction failed as a whole, or its outcome is unknown. */
  | { readonly kind: 'failed'; readonly error: unknown }
  /** Another transaction holds the head. */
  | { readonly kind: 'contended' }
  /** The transaction was full. */
  | { readonly kind: 'postponed' }
  /** The transaction of several projects failed; each is retried separately. */
  | { readonly kind: 'suspect' };

/** A project whose head the transaction has locked. */
interface Locked {
  readonly at: number;
  readonly member: Member;
  readonly state: PreState;
  readonly drafts: readonly CommitDraft[];
  readonly indexing: GroupIndexContext;
}

/**
 * One attempt of a transaction, with its outcomes once they are decided. They are valid when the commit's
 * effect is confirmed later.
 */
export class Attempt {
  readonly id = uuidv7();
  readonly #members: readonly Member[];
  readonly #isAlone: boolean;
  readonly #outcomes: (Outcome | undefined)[];
  /** Projects whose heads it has locked. */
  projects: readonly string[] = [];

  constructor(members: readonly Member[], isAlone: boolean) {
    this.#members = members;
    this.#isAlone = isAlone;
    this.#outcomes = members.map(() => undefined);
  }

  get outcomes(): readonly Outcome[] {
    return this.#outcomes.map((outcome) => {
      if (outcome === undefined) throw new Error('a transaction was committed without a plan');
      return outcome;
    });
  }

  async run(database: Database): Promise<readonly Outcome[]> {
    const query = preStateQuery(this.#members, this.#isAlone);
    await database.transaction(query.statements, async (transaction, begun) => {
      const found = foundRows(this.#members, query, begun);
      await this.#judgeMissing(transaction, found);
      const locked = await this.#open(transaction, found);
      this.projects = locked.map(({ member }) => member.project.project);
      const plans = await planAll(transaction, locked);
      const writes = locked.flatMap((one) => this.#write(one, plans.get(one)));
      if (writes.length === 0) return undefined;
      const { statement, values } = writeOfGroup(writes, this.id);
      await transaction.last(statement, values);
      return true;
    });
    return this.outcomes;
  }

  /** Distinguishes heads that are gone from those that other transactions hold. */
  async #judgeMissing(transaction: Transaction, found: readonly FoundRows[]): Promise<void> {
    const missing = this.#members.filter((_, at) => found[at]?.head === undefined);
    if (missing.length === 0) return;
    const names = textArray(missing.map(({ project }) => project.project));
    const present = this.#isAlone ? [] : await transaction.query(HEADS_PRESENT, [names]);
    const held = new Set(present.map(([project]) => project));
    for (const [at, { project }] of this.#members.entries()) {
      if (found[at]?.head !== undefined) continue;
      this.#outcomes[at] = held.has(project.project)
        ? { kind: 'contended' }
        : { kind: 'refused', error: new ProjectGone('the project is not there any more') };
    }
  }

  async #open(transaction: Transaction, found: readonly FoundRows[]): Promise<Locked[]> {
    const locked: Locked[] = [];
    for (const [at, member] of this.#members.entries()) {
      const { head, ...rows } = found[at] as FoundRows;
      if (head === undefined) continue;
      const { project, commits } = member;
      const opened = await this.#orRefused(at, async () => {
        const state = openPreState(member, { ...rows, head });
        return { state, indexes: await project.indexesAsOf(state.indexVersion, transaction) };
      });
      if (opened === undefined) continue;
      const { state, indexes } = opened;
      const indexing = new GroupIndexContext(project.project, indexes, project.rows, project.preparedOf);
      await indexing.countFormer(transaction, state.states);
      locked.push({ at, member, state, indexing, drafts: draftsOf(commits, project.clock) });
    }
    return locked;
  }

  /** The rows that the transaction writes for a project, if any. */
  #write({ at, member, state }: Locked, plan: GroupPlan | undefined): ProjectWrites[] {
    if (plan === undefined) {
      this.#outcomes[at] ??= { kind: 'postponed' };
      return [];
    }
    const { project, cipher, rows, names, seals } = member.project;
    const { documents, idempotencyRecords, seq } = plan;
    const isChanged = seq !== state.seq || idempotencyRecords.length > 0;
    const sealed = documents.filter(({ text }) => text !== undefined).length;
    seals.spend(sealed);
    const count = state.seals !== undefined && sealed > 0 ? seals.reserve(state.seals) : undefined;
    this.#outcomes[at] = { kind: 'planned', plan, isChanged, count };
    if (!isChanged) return [];
    return [{ project, documents, idempotencyRecords, seq, seals: count?.sealed, cipher, rows, names }];
  }

  /** An error of one project only affects that project. */
  async #orRefused<T>(at: number, action: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      if (isOfDatabase(error)) throw error;
      this.#outcomes[at] = { kind: 'refused', error };
      return undefined;
    }
  }
}

/**
 * Plans the commits of all projects in a transaction. Their lookups of tokens are batched. Commits
 * that would need more than {@link LOOK_UPS_MAX} are left to another transaction. When the entries fill the
 * transaction, later projects with indexes get no plan and are not charged.
 */
async function planAll(
  transaction: Transaction,
  locked: readonly Locked[],
): Promise<ReadonlyMap<Locked, GroupPlan>> {
  const plans = new Map<Locked, GroupPlan>();
  const writes = Math.max(
    0,
    ...locked.map(({ drafts }) => drafts.reduce((sum, { revs }) => sum + revs.length, 0)),
  );
  let entries = 0;
  let open = locked.filter((one) => {
    if (entries > GROUP_ENTRIES_MAX && one.indexing.hasIndexes) return false;
    plans.set(one, planOf(one));
    entries += one.indexing.entries;
    return true;
  });
  for (let left = LOOK_UPS_MAX; open.length > 0; ) {
    const again = await lookUpHolders(
      transaction,
      open.map(({ indexing }) => indexing),
      writes,
    );
    open = open.filter(({ indexing }) => again.has(indexing));
    if (--left === 0) for (const { indexing } of open) indexing.stopAsking();
    for (const one of open) plans.set(one, planOf(one));
  }
  return plans;
}

function planOf({ member: { project, commits }, state, drafts, indexing }: Locked): GroupPlan {
  return planGroup(commits, state, drafts, { ...project, indexing });
}
