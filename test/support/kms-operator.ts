import type { Draw } from './draw.ts';
import {
  type Cells,
  type Content,
  copyOf,
  idOf,
  isSameRow,
  type KmsChange,
  type KmsDatabase,
  TABLE_NAMES,
  type TableName,
  writeContent,
} from './kms-database.ts';
import { olderCopy, rowAct } from './kms-row-acts.ts';
import { runSchema, type SchemaAct, schemaAct } from './kms-schema-acts.ts';

/** The row that an act changed. */
interface Changed {
  readonly table: TableName;
  readonly id: string;
  readonly before: Cells | undefined;
  readonly after: Cells | undefined;
}

type Act =
  | { readonly kind: 'schema'; readonly act: SchemaAct; taken?: readonly (readonly [TableName, Cells])[] }
  | { readonly kind: 'rows'; readonly changed: readonly Changed[] };

/** The place of a record in the chain. */
export interface RecordPlace {
  readonly seq: number;
  readonly hash: string;
}

/** Actions of records that end something. */
const ENDS = /^'(token\.revoke|key\.(disable|schedule_deletion|destroy|shred|delete))'$/;

/** Earlier states that are kept, for acts that go back to one. */
const COPIES_MAX = 12;

/**
 * The operator of BunKMS's database, who has no KEK: attacks it, and can take back exactly what the attacks
 * did. What BunKMS wrote meanwhile stays.
 */
export class KmsOperator {
  readonly database: KmsDatabase;
  readonly #copies: Content[] = [];
  readonly #acts: Act[] = [];
  /** The hashes of records that acts on rows have taken away. */
  readonly removed = new Set<string>();
  /** The hashes of records that BunKMS wrote at an end of the chain which was then given up. */
  readonly #givenUp = new Set<string>();
  #made = 0;

  constructor(database: KmsDatabase) {
    this.database = database;
  }

  /** Whether an act is in force. */
  get isActing(): boolean {
    return this.#acts.length > 0;
  }

  async keepCopy(): Promise<void> {
    this.#keep(await this.content());
  }

  content(): Promise<Content> {
    return this.database.change(false, (change) => change.content());
  }

  /** The hashes of the chain, by number. */
  async chain(): Promise<Map<number, string>> {
    return hashesOf(await this.content());
  }

  /** The latest record that revokes a family of tokens, or ends a key. */
  async latestEnd(of: string): Promise<RecordPlace | undefined> {
    const { audit } = await this.content();
    const latest = [...audit.values()]
      .filter(
        ({ action = '', key, detail = '' }) =>
          ENDS.test(action) && (key === `'${of}'` || detail.includes(`"family":"${of}"`)),
      )
      .sort((one, other) => numberOf(one['seq']) - numberOf(other['seq']))
      .at(-1);
    return latest && { seq: numberOf(latest['seq']), hash: hashOf(latest) };
  }

  /** A random act. @returns what was done. */
  act(draw: Draw): Promise<string> {
    return draw.chance(0.45) ? this.#actOnSchema(draw) : this.#actOnRows(draw, rowAct);
  }

  /** Puts an older copy of everything in place of what is there. */
  goBack(draw: Draw): Promise<string> {
    return this.#actOnRows(draw, olderCopy);
  }

  async #actOnSchema(draw: Draw): Promise<string> {
    const name = `h_${this.#made++}`;
    return await this.#trying(false, async (change) => {
      const act = await schemaAct(this.database.kind, { draw, change, name });
      if (act === undefined) return 'nothing';
      await runSchema(change, act.apply);
      return () => {
        if (act.moved !== undefined) this.database.places.set(...act.moved);
        this.#acts.push({ kind: 'schema', act });
        return act.told;
      };
    });
  }

  #actOnRows(draw: Draw, make: typeof rowAct): Promise<string> {
    return this.#trying(true, async (change) => {
      const before = await change.content();
      this.#keep(before);
      const { after, told } = make(before, { draw, copies: this.#copies });
      await writeContent(this.database, change, before, after);
      // A trigger of SQLite may have changed more, or less.
      const changed = changesBetween(before, await change.content());
      return () => {
        if (changed.length > 0) this.#acts.push({ kind: 'rows', changed });
        for (const { table, before: gone } of changed)
          if (table === 'audit' && gone !== undefined) this.removed.add(hashOf(gone));
        return told;
      };
    });
  }

  /** An act that the database refuses has no effect. */
  async #trying(
    isExclusive: boolean,
    work: (change: KmsChange) => Promise<string | (() => string)>,
  ): Promise<string> {
    try {
      const done = await this.database.change(isExclusive, work);
      return typeof done === 'string' ? done : done();
    } catch (error) {
      return `refused: ${(error as Error).message}`;
    }
  }

  /**
   * Takes back every act, the latest first, in one transaction. Rows get the values back that the acts
   * changed. Records that a trigger took away at the end of the chain may stay away: they allowed no answer.
   *
   * @returns whether there were two ends of the chain: BunKMS had continued a shortened chain meanwhile, or
   *   an act had put back an end that was given up. Only the first end is left then.
   */
  async undo(draw: Draw): Promise<boolean> {
    const acts = this.#acts.splice(0).reverse();
    return await this.database.change(true, async (change) => {
      for (const act of acts) if (act.kind === 'schema') await this.#undoSchema(change, act);
      const from = await change.content();
      const to = copyOf(from);
      let hasForked = false;
      for (const act of acts)
        if (act.kind === 'schema') restoreTaken(to, act.taken ?? [], draw.chance(0.5));
        else if (undoRows(to, act.changed, this.#givenUp)) hasForked = true;
      if (hasForked) {
        dropUnlinked(to);
        const left = new Set(hashesOf(to).values());
        for (const hash of [...hashesOf(from).values(), ...acts.flatMap(hashesIn)])
          if (!left.has(hash)) this.#givenUp.add(hash);
      }
      await writeContent(this.database, change, from, to);
      return hasForked;
    });
  }

  async #undoSchema(change: KmsChange, entry: Act & { kind: 'schema' }): Promise<void> {
    const { act } = entry;
    if (act.taken !== undefined) {
      entry.taken = await takenIn(change, act.taken);
      await change.run(`DROP TABLE public.${act.taken}`);
    }
    await runSchema(change, act.undo);
    if (act.moved !== undefined) this.database.places.delete(act.moved[0]);
  }

  #keep(content: Content): void {
    this.#copies.push(copyOf(content));
    // The first ones are the oldest, and stay.
    if (this.#copies.length > COPIES_MAX) this.#copies.splice(COPIES_MAX / 2, 1);
  }
}

function hashOf({ hash = '' }: Cells): string {
  return hash.replaceAll("'", '');
}

function numberOf(cell: string | undefined): number {
  return Number(cell?.replaceAll("'", ''));
}

function hashesOf(content: Content): Map<number, string> {
  return new Map([...content.audit.values()].map((cells) => [numberOf(cells['seq']), hashOf(cells)]));
}

/** The hashes of records that an act took away or put in their place. */
function hashesIn(act: Act): string[] {
  if (act.kind === 'schema') return [];
  return act.changed
    .filter(({ table }) => table === 'audit')
    .flatMap(({ before, after }) => [before, after].flatMap((cells) => (cells ? [hashOf(cells)] : [])));
}

function changesBetween(before: Content, after: Content): Changed[] {
  return TABLE_NAMES.flatMap((table) =>
    [...new Set([...before[table].keys(), ...after[table].keys()])]
      .map((id) => ({ table, id, before: before[table].get(id), after: after[table].get(id) }))
      .filter((one) => !isSameRow(one.before, one.after)),
  );
}

/** Removes the records from the first one on that does not continue the one before it. */
function dropUnlinked({ audit }: Content): void {
  let before: Cells | undefined;
  let isLinked = true;
  const records = [...audit].sort(([, one], [, other]) => numberOf(one['seq']) - numberOf(other['seq']));
  for (const [id, cells] of records) {
    isLinked &&= before === undefined || cells['prev_hash'] === before['hash'];
    if (!isLinked) audit.delete(id);
    before = cells;
  }
}

/** @returns whether BunKMS has used the number of a record that was taken away, or saw an end given up. */
function undoRows(content: Content, changed: readonly Changed[], givenUp: ReadonlySet<string>): boolean {
  let isForked = false;
  for (const { table, id, before, after } of changed) {
    const now = content[table].get(id);
    if (table === 'audit' && after !== undefined && givenUp.has(hashOf(after))) isForked = true;
    if (before === undefined) {
      // What BunKMS wrote there since is its own.
      if (isSameRow(now, after)) content[table].delete(id);
    } else if (now === undefined || after === undefined) {
      if (table === 'audit' && now !== undefined && !isSameRow(now, before)) isForked = true;
      content[table].set(id, before);
    } else content[table].set(id, withFormer(now, before, after));
  }
  return isForked;
}

/** The row with the former values of those columns that an act changed and BunKMS has not. */
function withFormer(now: Cells, before: Cells, after: Cells): Cells {
  const former = Object.entries(before).filter(
    ([column, value]) => after[column] !== value && now[column] === after[column],
  );
  return { ...now, ...Object.fromEntries(former) };
}

/** @param isEndLost whether records after the end of the chain stay away. */
function restoreTaken(
  content: Content,
  taken: readonly (readonly [TableName, Cells])[],
  isEndLost: boolean,
): void {
  for (const [table, cells] of taken) if (table !== 'audit') content[table].set(idOf(table, cells), cells);
  const bySeq = new Map([...content.audit.values()].map((cells) => [numberOf(cells['seq']), cells]));
  const put = (cells: Cells) => {
    bySeq.set(numberOf(cells['seq']), cells);
    content.audit.set(idOf('audit', cells), cells);
  };
  const records = taken.filter(([table]) => table === 'audit').map(([, cells]) => cells);
  records.sort((one, other) => numberOf(one['seq']) - numberOf(other['seq']));
  // Those that are there and were changed, and those that a present record follows. BunKMS may have written
  // others in place of the rest.
  for (const cells of records.toReversed()) {
    const seq = numberOf(cells['seq']);
    const isThere = bySeq.get(seq)?.['hash'] === cells['hash'];
    if (isThere || bySeq.get(seq + 1)?.['prev_hash'] === cells['hash']) put(cells);
  }
  if (isEndLost) return;
  const head = Math.max(0, ...bySeq.keys());
  for (const cells of records)
    if (
      numberOf(cells['seq']) > head &&
      bySeq.get(numberOf(cells['seq']) - 1)?.['hash'] === cells['prev_hash']
    )
      put(cells);
}

async function takenIn({ rows }: KmsChange, name: string): Promise<(readonly [TableName, Cells])[]> {
  const kept = await rows(`SELECT at, of, taken FROM public.${name} ORDER BY at`);
  const found: (readonly [TableName, Cells])[] = [];
  for (const { at, of, taken } of kept) {
    // Without columns that an act added.
    const columns = Object.keys(taken as object).filter((column) => !column.startsWith('h_'));
    const cells = columns.map((column) => `quote_nullable(r.${column}::text) AS ${column}`).join(', ');
    const [row] = await rows(
      `SELECT ${cells} FROM public.${name}, jsonb_populate_record(NULL::${String(of)}, taken) AS r WHERE at = ${String(at)}`,
    );
    if (row !== undefined) found.push([of as TableName, row as Cells]);
  }
  return found;
}
