import { AppError } from '@bundoc/shared/contract/app-error';
import type { DocumentContent } from '../../../crypto/stored-text.ts';
import type { PlanIndexing, PlannedWrite } from '../../commit/commit-plan.ts';
import { COMMIT_ENTRIES_MAX, CommitEntries } from '../../indexes/commit-entries.ts';
import { ENTRIES_OF_DOCUMENT_MAX } from '../../indexes/index-keys.ts';
import { GroupUniqueness } from '../../indexes/uniqueness.ts';
import type { Write } from '../../port/port.ts';
import type { DocumentState } from '../../port/state.ts';
import type { Statement, Transaction } from '../database/database.ts';
import { byteaArray, numberArray, textArray } from '../database/parameters.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { entriesByName } from '../rows/rows.ts';
import {
  type DocumentEntries,
  type IndexRow,
  type IndexRows,
  isEnforced,
  type PreparedKeys,
  toEntries,
} from './index-rows.ts';

/**
 * Number of entries, including former ones of its documents, after which a transaction takes no more commits.
 * It computes, writes and removes them while it holds its projects' locks.
 */
export const GROUP_ENTRIES_MAX = 10_000;

/**
 * Finds the documents with a token, in indexes of some projects. One more than a group writes shows whether
 * there is another one.
 */
const HOLDERS: Statement = {
  name: 'bundoc-holders-2',
  text: `
SELECT t.place, h.name FROM unnest($1::text[], $2::bigint[], $3::bytea[]) WITH ORDINALITY AS t(project, index_id, token, place)
CROSS JOIN LATERAL (
  SELECT e.name FROM bundoc.index_tokens AS e
  WHERE e.project = t.project AND e.index_id = t.index_id AND e.token = t.token LIMIT $4
) AS h`,
};

/** Counts the entries of some documents, up to a total. */
const FORMER_ENTRIES: Statement = {
  name: 'bundoc-former-entries-1',
  text: `SELECT name, count(*) FROM (${entriesByName('$2::bytea[]', 'name')} LIMIT $3) AS e GROUP BY name`,
};

/** A token of a unique index, in hex, whose holders a plan needs. */
export interface Asked {
  readonly index: IndexRow;
  readonly token: string;
}

/**
 * The indexes of a project, for the documents of one transaction, under the project's lock. The holders
 * of tokens in unique indexes are unknown at first. The commits are planned, {@link lookUpHolders} answers
 * the plan's questions, and planning repeats until no question is left or the lookups are used up.
 */
export class GroupIndexContext implements PlanIndexing<readonly DocumentEntries[]> {
  readonly project: string;
  readonly #indexes: IndexRows;
  readonly #rows: RowCipher;
  readonly #preparedOf: (content: DocumentContent) => PreparedKeys | undefined;
  /** Names of the documents with a token, in hex. */
  readonly #holders = new Map<string, readonly string[]>();
  #asked = new Map<string, Asked>();
  /** By revision: the entries of a document are computed once, however often the group is planned. */
  readonly #made = new Map<Buffer, { readonly text: Buffer; readonly entries: readonly DocumentEntries[] }>();
  #uniqueness = new GroupUniqueness<IndexRow>(() => []);
  /**
   * Entry counts of documents that the group replaces or deletes, by name; empty when they are small in any
   * case.
   */
  #former: ReadonlyMap<string, number> = new Map();
  #entries = 0;
  #ofCommit = new CommitEntries();
  #mayAsk = true;
  #isCut = false;

  /** @param preparedOf keys of a document that were computed before its commit. */
  constructor(
    project: string,
    indexes: IndexRows,
    rows: RowCipher,
    preparedOf: (content: DocumentContent) => PreparedKeys | undefined,
  ) {
    this.project = project;
    this.#preparedOf = preparedOf;
    this.#indexes = indexes;
    this.#rows = rows;
  }

  /**
   * Counts the entries of documents that the group may replace or delete, unless one commit could remove all
   * of them. Documents not counted are assumed to have the maximum.
   */
  async countFormer(transaction: Transaction, states: ReadonlyMap<string, DocumentState>): Promise<void> {
    const most = new Map<string, number>();
    for (const [name, { collection, deletedMs }] of states) {
      const indexes = deletedMs === 0 ? this.#indexes.byCollection.get(collection) : undefined;
      const unique = indexes?.filter(({ spec }) => spec.unique).length ?? 0;
      if (unique > 0) most.set(name, unique * ENTRIES_OF_DOCUMENT_MAX);
    }
    if (sumOf(most.values()) <= COMMIT_ENTRIES_MAX) return;
    const names = Array.from(most.keys(), (name) => Buffer.from(name, 'hex'));
    const found = await transaction.query(FORMER_ENTRIES, [this.project, names, COMMIT_ENTRIES_MAX + 1]);
    const counts = new Map(found.map((row) => [(row[0] as Buffer).toString('hex'), Number(row[1])]));
    const isCut = sumOf(counts.values()) > COMMIT_ENTRIES_MAX;
    this.#former = new Map(
      most.entries().map(([name, many]) => [name, counts.get(name) ?? (isCut ? many : 0)]),
    );
  }

  /** Begins a plan. */
  begin(): void {
    this.#entries = 0;
    this.#isCut = false;
    this.#uniqueness = new GroupUniqueness((index, token) => this.#holdersOf(index, token));
  }

  /** Begins a commit. Undefined when the commit must wait for another transaction. */
  commit() {
    if (this.#isCut || this.#entries > GROUP_ENTRIES_MAX) return undefined;
    this.#ofCommit = new CommitEntries();
    const { write, check, accept } = this.#uniqueness.commit();
    return {
      write: (
        { at, fileName }: Pick<PlannedWrite<unknown>, 'at' | 'fileName'>,
        entries: readonly DocumentEntries[],
      ) => write(fileName, enforcedEntries(entries), at),
      check,
      accept,
    };
  }

  /**
   * A document's entries; undefined in a collection without indexes.
   *
   * @throws AppError `integrity_error` when an index is undecryptable, because its entries are then unknown;
   *   `payload_too_large`.
   */
  entriesOf(
    write: Write,
    { state: { collection, rev }, fileName, text }: Omit<PlannedWrite<unknown>, 'entries'>,
  ): readonly DocumentEntries[] | undefined {
    const { byCollection, damaged } = this.#indexes;
    if (damaged.size > 0 && damaged.has(this.#rows.collectionToken(collection).toString('hex')))
      throw new AppError('integrity_error');
    const indexes = byCollection.get(collection);
    if (indexes === undefined) return undefined;
    this.#count(this.#former.get(fileName) ?? 0);
    if (text === undefined) return indexes.map((index) => ({ index, keys: undefined, tokens: [] }));
    let made = this.#made.get(rev);
    if (made?.text.equals(text) !== true) {
      const prepared = write.kind === 'put' ? this.#preparedOf(write.content) : undefined;
      made = { text, entries: toEntries(indexes, text, this.#rows, prepared) };
      this.#made.set(rev, made);
    }
    this.#count(sumOf(made.entries.map(({ keys, tokens }) => tokens.length + (keys?.keys.length ?? 0))));
    return made.entries;
  }

  /** @throws AppError `payload_too_large`. */
  #count(entries: number): void {
    this.#entries += entries;
    this.#ofCommit.add(entries);
  }

  /** False if plans add and remove no entries. */
  get hasIndexes(): boolean {
    return this.#indexes.byCollection.size > 0;
  }

  /** Number of entries that the plan adds and removes. */
  get entries(): number {
    return this.#entries;
  }

  /** From now on, a plan ends at the first commit with an unanswered question. */
  stopAsking(): void {
    this.#mayAsk = false;
  }

  /** Whether the last commit of the plan has an unanswered question, so that it is not decided. */
  get isCut(): boolean {
    return this.#isCut;
  }

  /** Returns and clears the plan's unanswered questions. */
  takeAsked(): readonly Asked[] {
    const asked = [...this.#asked.values()];
    this.#asked = new Map();
    return asked;
  }

  /** Answers one question of {@link takeAsked}. */
  answer({ index, token }: Asked, holders: readonly string[]): void {
    this.#holders.set(toPlace(index.id, token), holders);
  }

  #holdersOf(index: IndexRow, token: string): readonly string[] {
    const place = toPlace(index.id, token);
    const known = this.#holders.get(place);
    if (known !== undefined) return known;
    if (!this.#mayAsk) {
      this.#isCut = true;
      throw new Error('the commit is for another transaction');
    }
    this.#asked.set(place, { index, token });
    return [];
  }
}

/**
 * Answers the questions of all plans in a transaction with one statement.
 *
 * @param writes of the transaction.
 * @returns the contexts whose commits must be planned again.
 */
export async function lookUpHolders(
  transaction: Transaction,
  contexts: readonly GroupIndexContext[],
  writes: number,
): Promise<ReadonlySet<GroupIndexContext>> {
  const asked = contexts.flatMap((context) =>
    context.takeAsked().map((question) => ({ context, question, holders: [] as string[] })),
  );
  if (asked.length > 0) {
    const found = await transaction.query(HOLDERS, [
      textArray(asked.map(({ context }) => context.project)),
      numberArray(asked.map(({ question }) => question.index.id)),
      byteaArray(asked.map(({ question }) => question.token)),
      writes + 1,
    ]);
    for (const row of found) {
      const [place, name] = row as unknown as [number, Buffer];
      asked[place - 1]?.holders.push(name.toString('hex'));
    }
  }
  for (const { context, question, holders } of asked) context.answer(question, holders);
  return new Set(asked.map(({ context }) => context));
}

function sumOf(numbers: Iterable<number>): number {
  let sum = 0;
  for (const number of numbers) sum += number;
  return sum;
}

/** Entries in the unique indexes that enforce uniqueness. */
function enforcedEntries(entries: readonly DocumentEntries[]): (readonly [IndexRow, readonly string[]])[] {
  return entries.flatMap(({ index, tokens }) => (isEnforced(index) ? [[index, tokens] as const] : []));
}

function toPlace(id: number, token: string): string {
  return `${id} ${token}`;
}
