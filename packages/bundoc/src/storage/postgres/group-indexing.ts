import { AppError } from '@bundoc/shared/errors';
import { UniquenessOfGroup } from '../indexes/uniqueness.ts';
import { type BlindEntries, type BlindIndex, type BlindIndexes, entriesOf } from './blind-index.ts';
import type { Statement, Transaction } from './database.ts';
import type { RowCipher } from './row-cipher.ts';

/** Entries of a group's documents after which it ends: they are made, and written, while the project is locked. */
const GROUP_ENTRIES_MAX = 10_000;
/** Entries of one commit at most. */
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
  #entries = 0;
  #entriesOfCommit = 0;

  constructor(indexes: BlindIndexes, rows: RowCipher) {
    this.#indexes = indexes;
    this.#rows = rows;
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
   * @param text undefined for a deleted one.
   * @throws AppError `integrity_error` when an index does not open, so that nobody knows what they are; `payload_too_large`.
   */
  entriesOf(collection: string, text: Buffer | undefined, rev: Buffer): readonly BlindEntries[] | undefined {
    const { byCollection, damaged } = this.#indexes;
    if (damaged.size > 0 && damaged.has(this.#rows.collectionToken(collection).toString('hex')))
      throw new AppError('integrity_error');
    const indexes = byCollection.get(collection);
    if (indexes === undefined) return undefined;
    if (text === undefined) return indexes.map((index) => ({ index, tokens: [], always: false }));
    let made = this.#made.get(rev);
    if (made?.text.equals(text) !== true) {
      made = { text, entries: entriesOf(indexes, text, this.#rows) };
      this.#made.set(rev, made);
    }
    const many = made.entries.reduce((sum, { tokens }) => sum + tokens.length, 0);
    this.#entries += many;
    this.#entriesOfCommit += many;
    if (this.#entriesOfCommit > COMMIT_ENTRIES_MAX)
      throw new AppError('payload_too_large', {
        detail: `the documents have more than ${COMMIT_ENTRIES_MAX} entries in indexes`,
      });
    return made.entries;
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

function placeOf(id: number, token: string): string {
  return `${id} ${token}`;
}
