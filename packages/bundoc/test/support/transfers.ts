import { AppError } from '@bundoc/shared/contract/app-error';
import { runInShare } from '@bundoc/shared/shares/share-key';
import type { DefinedStore } from '../../src/collections/defined-store.ts';
import { cursorsOf } from '../../src/crypto/sealed-cursor.ts';
import type { StoredDocument, Write } from '../../src/engine/port/port.ts';
import { ofOneState } from '../../src/engine/port/snapshot-port.ts';
import { SCAN_LIMITS } from '../../src/queries/scan-budget.ts';
import { whereSchema } from '../../src/queries/where.ts';
import { Queries } from '../../src/service/queries.ts';
import type { PostgresProject } from '../../src/testing/postgres-project.ts';
import { put, ref, remove } from '../../src/testing/writes.ts';
import { readValue } from '../../src/values/value.ts';
import { ownWork } from '../../src/work/scheduler.ts';

const ACCOUNTS = 200;
const BANKS = ['north', 'south'];
const BALANCE = 1_000;
/** Bytes of padding, of one account in so many. */
const SIZES = [
  { bytes: 200_000, every: 100 },
  { bytes: 10_000, every: 20 },
  { bytes: 10, every: 1 },
];

interface Account {
  readonly bank: string;
  readonly balance: number;
  readonly pad: string;
}
/** How many accounts an answer shows, and the sum of their balances; undefined for a figure it has not. */
export type Shown = readonly [accounts: number, sum: number | undefined];

const OF_ALL: Shown = [ACCOUNTS, ACCOUNTS * BALANCE];
const OF_BANK: Shown = [ACCOUNTS / BANKS.length, (ACCOUNTS * BALANCE) / BANKS.length];

const accountOf = ({ text }: StoredDocument) => JSON.parse(text.toString()) as Account;
const write = (id: string, { bank, balance, pad }: Account, rev?: string): Write =>
  put(
    id,
    JSON.stringify({ bank, balance, pad }),
    rev === undefined ? { kind: 'absent' } : { kind: 'revision', anyOf: [rev] },
  );

/** Creates the accounts, each with the same balance, half of them in each bank. */
export async function openAccounts(store: DefinedStore): Promise<void> {
  const padOf = (n: number) => SIZES.find(({ every }) => n % every === 0)?.bytes ?? 0;
  const writes = Array.from({ length: ACCOUNTS }, (_, n) =>
    write(`a${n}`, { bank: BANKS[n % BANKS.length]!, balance: BALANCE, pad: 'x'.repeat(padOf(n)) }),
  );
  await store.commit(writes);
}

/**
 * Changes two accounts in one commit. No commit changes how many accounts a bank has, or the sum of their
 * balances.
 *
 * @param below draws a number.
 */
export async function transfer(store: DefinedStore, below: (count: number) => number): Promise<void> {
  const ids = [`a${below(ACCOUNTS)}`, `a${below(ACCOUNTS)}`] as const;
  if (ids[0] === ids[1]) return;
  const [one, other] = [await store.get(ref(ids[0])), await store.get(ref(ids[1]))];
  if (one === undefined || other === undefined) throw new Error('an account is missing');
  const [from, to] = [accountOf(one), accountOf(other)];
  const revs = [one.metadata._rev, other.metadata._rev] as const;
  // Accounts of different banks change places, so that an index has other entries.
  const amount = from.bank === to.bank ? below(from.balance + 1) : from.balance - to.balance;
  const banks = from.bank === to.bank ? [from.bank, to.bank] : [to.bank, from.bank];
  await store.commit([
    write(ids[0], { ...from, bank: banks[0]!, balance: from.balance - amount }, revs[0]),
    write(ids[1], { ...to, bank: banks[1]!, balance: to.balance + amount }, revs[1]),
  ]);
}

/** Replaces an account by a new one, which is the last in the order of creation. */
export async function replace(store: DefinedStore, below: (count: number) => number): Promise<void> {
  const id = `a${below(ACCOUNTS)}`;
  const found = await store.get(ref(id));
  if (found === undefined) throw new Error('an account is missing');
  await store.commit([
    remove(id, { kind: 'revision', anyOf: [found.metadata._rev] }),
    write(id, accountOf(found)),
  ]);
}

const shownIn = (documents: readonly StoredDocument[]): Shown => [
  documents.length,
  documents.reduce((sum, document) => sum + accountOf(document).balance, 0),
];

/** Questions of every kind to a store, each with what every state answers. */
export class Readers {
  readonly #store: DefinedStore;
  readonly #project: PostgresProject;
  readonly #queries: Queries;

  constructor(store: DefinedStore, project: PostgresProject) {
    this.#store = store;
    this.#project = project;
    const lease = {
      store,
      cursors: cursorsOf(project.project, project.cipher),
      isUsable: () => true,
      [Symbol.dispose]: () => undefined,
    };
    this.#queries = new Queries({ acquire: async () => lease }, SCAN_LIMITS);
  }

  static readonly kinds = {
    list: { expected: OF_ALL, ask: (of: Readers) => of.#list(1_000) },
    'list in pages': { expected: OF_ALL, ask: (of: Readers) => of.#list(30) },
    query: { expected: OF_ALL, ask: (of: Readers) => of.#query('{}', []) },
    'sorted query': { expected: OF_ALL, ask: (of: Readers) => of.#query('{}', ['balance']) },
    'query by index': { expected: OF_BANK, ask: (of: Readers) => of.#query('{"bank":"north"}', []) },
    count: { expected: [ACCOUNTS, undefined], ask: (of: Readers) => of.#count('{"balance":{"$gte":0}}') },
    'count by index': {
      expected: [OF_BANK[0], undefined],
      ask: (of: Readers) => of.#count('{"bank":"south"}'),
    },
    aggregate: { expected: OF_ALL, ask: (of: Readers) => of.#aggregate('{}') },
    'aggregate by index': { expected: OF_BANK, ask: (of: Readers) => of.#aggregate('{"bank":"south"}') },
  } as const satisfies Record<string, { expected: Shown; ask: (of: Readers) => Promise<Shown> }>;

  async #list(limit: number): Promise<Shown> {
    using snapshot = await this.#store.snapshot('notes');
    return await ofOneState(async () => {
      const documents: StoredDocument[] = [];
      let after: number | undefined = 0;
      while (after !== undefined) {
        const page = await snapshot.list({ after, limit, bytesMax: 10_000_000 });
        documents.push(...page.documents);
        after = page.next;
      }
      const [count, sum] = shownIn(documents);
      return [(await snapshot.total()) === count ? count : Number.NaN, sum];
    });
  }

  async #query(where: string, fields: readonly string[]): Promise<Shown> {
    const orderBy = fields.map((field) => ({ field, direction: 'asc' as const }));
    return this.#selecting(where, async (selection) => {
      const page = { limit: 1_000, bytesMax: 10_000_000, cursor: undefined, fields: undefined };
      return shownIn((await this.#queries.query({ ...selection, ...page, orderBy })).documents);
    });
  }

  async #count(where: string): Promise<Shown> {
    return this.#selecting(where, async (selection) => [
      (await this.#queries.count(selection)).count,
      undefined,
    ]);
  }

  async #aggregate(where: string): Promise<Shown> {
    return this.#selecting(where, async (selection) => {
      const figures = [{ op: 'count' }, { op: 'sum', field: 'balance' }] as const;
      const { groups } = await this.#queries.aggregate(selection, [], figures);
      const [count, sum] = groups[0]?.figures ?? [];
      return [Number(count), Number(sum)];
    });
  }

  async #selecting(
    whereText: string,
    ask: (selection: Parameters<Queries['count']>[0]) => Promise<Shown>,
  ): Promise<Shown> {
    const { project } = this.#project;
    using work = ownWork(project)('query');
    const where = whereSchema.parse(readValue(whereText));
    return await runInShare({ subject: 's', project }, () =>
      ask({ project, collection: 'notes', where, whereText, work }),
    );
  }
}

/** An answer that was refused because of a killed node, a conflict or too much load. */
export const isRefusal = (error: unknown) =>
  error instanceof AppError &&
  ['precondition_failed', 'storage_unavailable', 'overloaded', 'rate_limited', 'snapshot_too_old'].includes(
    error.code,
  );
