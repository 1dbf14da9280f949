import { AppError } from '@bundoc/shared/errors';
import type { DocumentState } from '../embedded/record.ts';
import { ENTRIES_OF_DOCUMENT_MAX } from '../indexes/index-keys.ts';
import { UniquenessOfGroup } from '../indexes/uniqueness.ts';
import { type BlindEntries, type BlindIndex, type BlindIndexes, entriesOf } from './blind-index.ts';
import type { Statement, Transaction } from './database.ts';
import type { RowCipher } from './row-cipher.ts';
import { entriesByName } from './rows.ts';

/** Entries of a group's documents, those that they had among them, after which it ends: they are made, written and removed while the project is locked. */
const GROUP_ENTRIES_MAX = 10_000;
/** Entries that one commit makes and takes away at most. A single document has fewer, with those of indexes on their way out. */
const COMMIT_ENTRIES_MAX = 50_000;

/** Who has a token, in each of some indexes. One more than a group writes is enough to know whether there is somebody else. */
const HOLDERS: Statement = {
  name: 'bundoc-holders-1',
  text: `
SELECT t.index_id, t.token, h.name FROM unnest($2::bigint[], $3::bytea[]) AS t(index_id, token)
CROSS JOIN LATERAL (
  SELECT e.name FROM bundoc.blind_entries AS e
  WHERE e.project = $1 AND e.index_id = t.index_id AND e.token = t.token LIMIT $4
) AS h`,
};

/** How many entries some documents have, up to a number of all of them together. */
const FORMER_ENTRIES: Statement = {
  name: 'bundoc-former-entries-1',
  text: `SELECT name, count(*) FROM (${entriesByName('$2::bytea[]', 'name')} LIMIT $3) AS e GROUP BY name`,
};

interface Asked {
  readonly index: BlindIndex;
  readonly token: string;
}

/**
 * What the blind indexes of a project say of one group's documents, under the project's lock. Who has a token of a unique index is not known at
 * first: the group is decided, what was asked meanwhile is looked up, and the group is decided again, until nothing more is asked.
 */
export class IndexingOfGroup {
  readonly #indexes: BlindIndexes;
  readonly #rows: RowCipher;
  /** Names of the documents that have a token, in hex. */
  readonly #holders = new Map<string, readonly string[]>();
  #asked = new Map<string, Asked>();
  /** By revision: a document is looked at once, however often the group is decided. */
  readonly #made = new Map<Buffer, { readonly text: Buffer; readonly entries: readonly BlindEntries[] }>();
  #uniqueness = new UniquenessOfGroup<BlindIndex>(() => []);
  /** Entries that documents have which the group replaces or deletes, by name; empty where they are few in any case. */
  #former: ReadonlyMap<string, number> = new Map();
  #entries = 0;
  #entriesOfCommit = 0;

  constructor(indexes: BlindIndexes, rows: RowCipher) {
    this.#indexes = indexes;
    this.#rows = rows;
  }

  /**
   * Counts the entries of what the group may replace or delete, unless one commit could take all of them away. Those beyond what one could are taken for as many
   * as a document may have.
   */
  async countFormer(
    transaction: Transaction,
    project: string,
    states: ReadonlyMap<string, DocumentState>,
  ): Promise<void> {
    const most = new Map<string, number>();
    for (const [name, { collection, deletedMs }] of states) {
      const indexes = deletedMs === 0 ? this.#indexes.byCollection.get(collection) : undefined;
      if (indexes !== undefined) most.set(name, indexes.length * ENTRIES_OF_DOCUMENT_MAX);
    }
    if (sumOf(most.values()) <= COMMIT_ENTRIES_MAX) return;
    const names = Array.from(most.keys(), (name) => Buffer.from(name, 'hex'));
    const found = await transaction.query(FORMER_ENTRIES, [project, names, COMMIT_ENTRIES_MAX + 1]);
    const counts = new Map(found.map((row) => [(row[0] as Buffer).toString('hex'), Number(row[1])]));
    const isCut = sumOf(counts.values()) > COMMIT_ENTRIES_MAX;
    this.#former = new Map(
      most.entries().map(([name, many]) => [name, counts.get(name) ?? (isCut ? many : 0)]),
    );
  }

  /** Begins with deciding the group. */
  begin(): void {
    this.#entries = 0;
    this.#uniqueness = new UniquenessOfGroup((index, token) => this.#holdersOf(index, token));
  }

  /** Begins with a commit. Undefined when it is to wait for another transaction. */
  commit() {
    if (this.#entries > GROUP_ENTRIES_MAX) return undefined;
    this.#entriesOfCommit = 0;
    return this.#uniqueness.commit();
  }

  /**
   * A document's entries; undefined in a collection without indexes.
   *
   * @param name of the document, in hex.
   * @param text undefined for a deleted one.
   * @throws AppError `integrity_error` when an index does not open, so that nobody knows what they are; `payload_too_large`.
   */
  entriesOf(
    { collection, rev }: Pick<DocumentState, 'collection' | 'rev'>,
    name: string,
    text: Buffer | undefined,
  ): readonly BlindEntries[] | undefined {
    const { byCollection, damaged } = this.#indexes;
    if (damaged.size > 0 && damaged.has(this.#rows.collectionToken(collection).toString('hex')))
      throw new AppError('integrity_error');
    const indexes = byCollection.get(collection);
    if (indexes === undefined) return undefined;
    this.#count(this.#former.get(name) ?? 0);
    if (text === undefined) return indexes.map((index) => ({ index, tokens: [], always: false }));
    let made = this.#made.get(rev);
    if (made?.text.equals(text) !== true) {
      made = { text, entries: entriesOf(indexes, text, this.#rows) };
      this.#made.set(rev, made);
    }
    this.#count(sumOf(made.entries.map(({ tokens }) => tokens.length)));
    return made.entries;
  }

  /** @throws AppError `payload_too_large`. */
  #count(entries: number): void {
    this.#entries += entries;
    this.#entriesOfCommit += entries;
    if (this.#entriesOfCommit > COMMIT_ENTRIES_MAX)
      throw new AppError('payload_too_large', {
        detail: `the documents have, or had, more than ${COMMIT_ENTRIES_MAX} entries in indexes`,
      });
  }

  /** Looks up what was asked and is not known. @returns whether there was something, so that the group is to be decided again. */
  async lookUp(transaction: Transaction, project: string, writes: number): Promise<boolean> {
    const asked = [...this.#asked.values()];
    if (asked.length === 0) return false;
    this.#asked = new Map();
    const found = await transaction.query(HOLDERS, [
      project,
      asked.map(({ index }) => index.id),
      asked.map(({ token }) => Buffer.from(token, 'hex')),
      writes + 1,
    ]);
    for (const { index, token } of asked) this.#holders.set(placeOf(index.id, token), []);
    for (const row of found) {
      const [id, token, name] = row as unknown as [number, Buffer, Buffer];
      const place = placeOf(id, token.toString('hex'));
      this.#holders.set(place, [...(this.#holders.get(place) ?? []), name.toString('hex')]);
    }
    return true;
  }

  #holdersOf(index: BlindIndex, token: string): readonly string[] {
    const place = placeOf(index.id, token);
    const known = this.#holders.get(place);
    if (known === undefined) this.#asked.set(place, { index, token });
    return known ?? [];
  }
}

function sumOf(numbers: Iterable<number>): number {
  let sum = 0;
  for (const number of numbers) sum += number;
  return sum;
}

function placeOf(id: number, token: string): string {
  return `${id} ${token}`;
}
