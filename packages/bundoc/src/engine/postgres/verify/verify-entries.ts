import type { Finding } from '../../port/reports.ts';
import type { DocumentState } from '../../port/state.ts';
import type { Queryable, Statement } from '../database/database.ts';
import { type IndexRows, readIndexes, toEntries } from '../indexes/index-rows.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { entriesByName } from '../rows/rows.ts';
import { OrderCheck } from './verify-order.ts';

const ENTRIES: Statement = {
  name: 'bundoc-verify-entries-1',
  text: `
SELECT name, index_id, token, created_seq FROM (
  ${entriesByName('$3::bytea[]', 'name, index_id, token, created_seq')}
) AS e WHERE index_id = ANY ($2::bigint[])`,
};
const COUNT: Statement = {
  name: 'bundoc-verify-entry-count-1',
  text: 'SELECT count(*) FROM bundoc.index_tokens WHERE project = $1 AND index_id = ANY ($2::bigint[])',
};

/** A document, or a tombstone without a text. */
export interface CheckedDocument {
  readonly state: DocumentState;
  readonly text: Buffer | undefined;
}

/**
 * Compares the tokens and the order of ready indexes with the values of documents. Everything must be in one
 * snapshot.
 */
export class EntriesCheck {
  readonly #order: OrderCheck;
  readonly #queryable: Queryable;
  readonly #project: string;
  readonly #rows: RowCipher;
  readonly #indexes: IndexRows;
  /** Ids of the ready ones. */
  readonly #ids: readonly number[];
  #entries = 0;

  private constructor(queryable: Queryable, project: string, rows: RowCipher, indexes: IndexRows) {
    this.#queryable = queryable;
    this.#project = project;
    this.#rows = rows;
    this.#indexes = indexes;
    this.#order = new OrderCheck(queryable, project, rows, indexes);
    this.#ids = [...indexes.byCollection.values()].flat().flatMap((index) => {
      return index.duplicates === undefined || !index.spec.unique ? [] : [index.id];
    });
  }

  /** @throws VersionUnknown for an index that is sealed under an unavailable version. */
  static async begin(queryable: Queryable, project: string, rows: RowCipher): Promise<EntriesCheck> {
    const indexes = await readIndexes(queryable, project, rows);
    return new EntriesCheck(queryable, project, rows, indexes);
  }

  /** Reports documents whose entries do not match their values. */
  async findings(documents: readonly CheckedDocument[]): Promise<Finding[]> {
    this.#order.take(documents);
    if (this.#ids.length === 0) return [];
    const names = documents.map(({ state }) => state.fileName);
    const present = new Map<string, Set<string>>();
    for (const row of await this.#queryable.query(ENTRIES, [this.#project, this.#ids, names])) {
      const [name, id, token, createdSeq] = row as unknown as [Buffer, number, Buffer, number];
      const hex = name.toString('hex');
      const entries = present.get(hex) ?? new Set();
      present.set(hex, entries.add(`${id} ${token.toString('hex')} ${createdSeq}`));
      this.#entries++;
    }
    return documents.flatMap(({ state, text }) => {
      const name = state.fileName.toString('hex');
      const expected = this.#expected(state, text);
      const found = present.get(name) ?? new Set();
      const isSame = expected.size === found.size && expected.isSubsetOf(found);
      return isSame
        ? []
        : [{ part: name, problem: 'its tokens in unique indexes are not those of its values' }];
    });
  }

  /** Findings after all documents were visited. */
  async end(): Promise<Finding[]> {
    const findings = [...this.#indexes.damaged.values()]
      .flat()
      .map((id): Finding => ({ part: `index ${id}`, problem: 'does not open' }));
    findings.push(...(await this.#order.end()));
    if (this.#ids.length === 0) return findings;
    const [row] = await this.#queryable.query(COUNT, [this.#project, this.#ids]);
    if (Number(row?.[0]) !== this.#entries)
      findings.push({ part: 'index_tokens', problem: 'there are entries of no document' });
    return findings;
  }

  #expected({ collection, createdSeq }: DocumentState, text: Buffer | undefined): Set<string> {
    const indexes = (this.#indexes.byCollection.get(collection) ?? []).filter(({ id }) =>
      this.#ids.includes(id),
    );
    const entries = text === undefined ? [] : toEntries(indexes, text, this.#rows);
    return new Set(
      entries.flatMap(({ index, tokens }) => tokens.map((token) => `${index.id} ${token} ${createdSeq}`)),
    );
  }
}
