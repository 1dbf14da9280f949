import { TOKEN_TTL_S_MAX } from '@bundoc/shared/contract/tokens';
import { runs } from '@bundoc/shared/testing/long';
import { expect, inject, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const ACCOUNTS = 200;
const START = 100;
const SUM = ACCOUNTS * START;
const WRITERS = 4;
/** Answers that are checked, of all kinds together. */
const ANSWERS = runs(200, 100_000);
/** Answers between two lines of the long form. */
const SAID_EVERY = 10_000;
const PATIENCE_MS = runs(400_000, 14_400_000);
const COLLECTIONS = ['plain', 'indexed'] as const;
const ON_POSTGRES = inject('postgresUrl') !== undefined;
const BASE = '/v1/projects/bank';
const ANY_BALANCE = { balance: { $gte: -1_000_000 } };

interface Owned {
  id: string;
  readonly n: number;
  balance: number;
  side: string;
}
interface Account {
  readonly balance: number;
  readonly side: string;
}
interface Page {
  readonly documents: readonly Account[];
  readonly next_cursor?: string;
  readonly total?: number;
  readonly as_of: number;
}

/** From 100 bytes to 200 KB; most are small. */
function padOf(account: number): string {
  const bytes = account % 40 === 7 ? 200_000 : account % 8 === 3 ? 20_000 : 100 + account * 8;
  return 'x'.repeat(bytes);
}

/**
 * Moves money between accounts of its own, each transfer one batch. It also swaps the sides of two accounts,
 * and opens one account again under another id, so that sum and counts are the same in every state.
 */
class Teller {
  readonly #token: string;
  readonly #url: string;
  readonly #collection: string;
  readonly #accounts: Owned[];
  #random: number;
  #opened = 0;

  constructor(url: string, token: string, collection: string, at: number, seed: number) {
    this.#url = url;
    this.#token = token;
    this.#collection = collection;
    this.#random = seed + at * 7_919 + 1;
    this.#accounts = Array.from({ length: ACCOUNTS / WRITERS }, (_, k) => {
      const n = k * WRITERS + at;
      return { id: `account-${n}`, n, balance: START, side: k % 2 === 0 ? 'debit' : 'credit' };
    });
  }

  /** Writes all accounts for the first time. */
  async open(): Promise<void> {
    await this.#batch(this.#accounts.map((one) => this.#put(one)));
  }

  async transfer(): Promise<void> {
    const at = this.#next(this.#accounts.length);
    const from = this.#accounts[at];
    const to = this.#accounts[(at + 1 + this.#next(this.#accounts.length - 1)) % this.#accounts.length];
    if (from === undefined || to === undefined || to === from) return;
    const amount = 1 + this.#next(50);
    from.balance -= amount;
    to.balance += amount;
    [from.side, to.side] = [to.side, from.side];
    const operations: object[] = [];
    if (this.#next(3) === 0) {
      operations.push({ op: 'delete', collection: this.#collection, id: from.id });
      from.id = `account-${from.n}-${++this.#opened}`;
    }
    await this.#batch([...operations, this.#put(from), this.#put(to)]);
  }

  #put({ id, n, balance, side }: Owned): object {
    const document = { n, balance, side, pad: padOf(n) };
    return { op: 'put', collection: this.#collection, id, document };
  }

  async #batch(operations: readonly object[]): Promise<void> {
    const body = JSON.stringify({ operations });
    const answer = await call(this.#url, `${BASE}/batch`, { method: 'POST', token: this.#token, body });
    expect([answer.status, answer.text.slice(0, 200)]).toEqual([200, expect.anything()]);
  }

  #next(below: number): number {
    this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#random / 2 ** 32) * below);
  }
}

/** What a reader asks, and what is wrong with its answer. */
type Reader = (collection: string, ask: Ask) => Promise<string | undefined>;
type Ask = <A>(path: string, body?: object) => Promise<A>;

const documentsPath = (collection: string) => `/collections/${collection}/documents`;
const sumOf = (documents: readonly Account[]) => documents.reduce((sum, { balance }) => sum + balance, 0);

function faultOf(what: string, found: unknown, expected: unknown): string | undefined {
  const [is, should] = [JSON.stringify(found), JSON.stringify(expected)];
  return is === should ? undefined : `${what}: ${is}, not ${should}`;
}

const READERS: Readonly<Record<string, Reader>> = {
  aggregate: async (collection, ask) => {
    const figures = { sum: { op: 'sum', field: 'balance' }, accounts: { op: 'count' } };
    const path = `/collections/${collection}/aggregate`;
    const { groups } = await ask<{ groups: { figures: unknown }[] }>(path, { figures });
    return faultOf('aggregate', groups[0]?.figures, { sum: SUM, accounts: ACCOUNTS });
  },
  'aggregate by an index': async (collection, ask) => {
    const figures = { sum: { op: 'sum', field: 'balance' } };
    const path = `/collections/${collection}/aggregate`;
    const { groups } = await ask<{ groups: { figures: unknown }[] }>(path, { where: ANY_BALANCE, figures });
    return faultOf('aggregate by an index', groups[0]?.figures, { sum: SUM });
  },
  count: async (collection, ask) => {
    const path = `/collections/${collection}/count`;
    const { count } = await ask<{ count: number }>(path, { where: { side: 'debit', n: { $gte: 0 } } });
    return faultOf('count', count, ACCOUNTS / 2);
  },
  'sorted query': async (collection, ask) => {
    const body = { orderBy: [{ field: 'balance' }], limit: 1_000, fields: ['balance'] };
    const { documents } = await ask<Page>(`/collections/${collection}/query`, body);
    return faultOf('sorted query', [documents.length, sumOf(documents)], [ACCOUNTS, SUM]);
  },
  'query backwards': async (collection, ask) => {
    const orderBy = [{ field: 'balance', direction: 'desc' }];
    const body = { where: ANY_BALANCE, orderBy, limit: 1_000, fields: ['balance'] };
    const { documents } = await ask<Page>(`/collections/${collection}/query`, body);
    return faultOf('query backwards', [documents.length, sumOf(documents)], [ACCOUNTS, SUM]);
  },
  'query in pages': async (collection, ask) => {
    const body = { where: ANY_BALANCE, limit: 70, fields: ['balance'] };
    const path = `/collections/${collection}/query`;
    const found: Account[] = [];
    let page = await ask<Page>(path, body);
    const { as_of } = page;
    for (;;) {
      found.push(...page.documents);
      if (page.next_cursor === undefined) break;
      page = await ask<Page>(path, { ...body, cursor: page.next_cursor, as_of });
      if (page.as_of !== as_of) return `a page of ${page.as_of}, not of ${as_of}`;
    }
    return faultOf('query in pages', [found.length, sumOf(found)], [ACCOUNTS, SUM]);
  },
  list: async (collection, ask) => {
    const path = `${documentsPath(collection)}?limit=1000&fields=balance&include=total`;
    const { documents, total } = await ask<Page>(path);
    return faultOf('list', [documents.length, total, sumOf(documents)], [ACCOUNTS, ACCOUNTS, SUM]);
  },
  'list in pages': async (collection, ask) => {
    const path = `${documentsPath(collection)}?limit=80&fields=balance`;
    const found: Account[] = [];
    let page = await ask<Page>(path);
    const { as_of } = page;
    for (;;) {
      found.push(...page.documents);
      if (page.next_cursor === undefined) break;
      page = await ask<Page>(`${path}&cursor=${encodeURIComponent(page.next_cursor)}&as_of=${as_of}`);
    }
    return faultOf('list in pages', [found.length, sumOf(found)], [ACCOUNTS, SUM]);
  },
};

it('no answer shows a state that no commit has left, beside four writers', {
  timeout: PATIENCE_MS,
}, async () => {
  const seed = Date.now() % 1_000_000;
  await using installation = await Installation.start();
  const { url } = installation;
  // The long form takes longer than the life of a token by default.
  const admin = await installation.issue({
    sub: 'app',
    typ: 'client',
    scope: ['docs:read', 'docs:write'],
    projects: ['*'],
    ttl_s: TOKEN_TTL_S_MAX.client,
  });
  const tellers = COLLECTIONS.map((collection) =>
    Array.from({ length: WRITERS }, (_, at) => new Teller(url, admin, collection, at, seed)),
  );
  for (const ofCollection of tellers) for (const teller of ofCollection) await teller.open();
  const definition = JSON.stringify({
    indexes: [{ fields: ['balance'] }, { fields: ['side'] }, { fields: ['n'] }],
  });
  await call(url, `${BASE}/collections/indexed`, { method: 'PUT', token: admin, body: definition });
  const isBuilt = async () =>
    !(await call(url, `${BASE}/collections/indexed`, { token: admin })).text.includes('building');
  await expect.poll(isBuilt).toBe(true);

  const faults: string[] = [];
  const checked = new Map<string, number>();
  let [answers, transfers, refused] = [0, 0, 0];
  const say = (text: string) => process.stdout.write(`one state, seed ${seed}: ${text}\n`);
  const ask: Ask = async <A>(path: string, body?: object) => {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const method = sent === undefined ? 'GET' : 'POST';
    const answer = await call(url, BASE + path, {
      method,
      token: admin,
      ...(sent === undefined ? {} : { body: sent }),
    });
    // A busy machine may refuse an answer; it may not give a wrong one.
    if (answer.status === 503)
      throw new Refused(answer.json()['code'] === 'snapshot_too_old' && `${path} ${sent}`.includes('as_of'));
    expect([path, answer.status, answer.text.slice(0, 200)]).toEqual([path, 200, expect.anything()]);
    return answer.json() as A;
  };
  const isOver = () => answers >= ANSWERS || faults.length > 0;
  const read = async (kind: string, reader: Reader) => {
    for (let n = 0; !isOver(); n++) {
      const collection = COLLECTIONS[n % COLLECTIONS.length] as string;
      try {
        const fault = await reader(collection, ask);
        if (fault !== undefined) faults.push(`${collection}: ${fault}`);
        answers++;
        checked.set(kind, (checked.get(kind) ?? 0) + 1);
        if (answers % SAID_EVERY === 0) say(`${answers} answers, ${transfers} transfers, ${refused} refused`);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        // PostgreSQL keeps no state between requests: a later page has one while its collection is unchanged.
        if (!error.isOfLaterPage || !ON_POSTGRES) refused++;
      }
    }
  };
  const write = async (at: number) => {
    for (; !isOver(); transfers++) await tellers[transfers % COLLECTIONS.length]?.[at]?.transfer();
  };
  await Promise.all([
    ...Object.entries(READERS).map(([kind, reader]) => read(kind, reader)),
    ...Array.from({ length: WRITERS }, (_, at) => write(at)),
  ]);
  expect([seed, faults]).toEqual([seed, []]);
  // Every kind was checked, beside writes, and nearly no answer was refused.
  // PostgreSQL keeps the state of a later page only while nobody changes the collection.
  const isSure = (kind: string) => !ON_POSTGRES || !kind.endsWith('in pages');
  const kinds = [...checked.keys()].filter(isSure);
  expect(kinds.sort()).toEqual(Object.keys(READERS).filter(isSure).sort());
  expect(transfers).toBeGreaterThan(ANSWERS / 10);
  expect(refused).toBeLessThan(ANSWERS / 100);
});

class Refused extends Error {
  /** Whether the state of a later page is gone. */
  readonly isOfLaterPage: boolean;

  constructor(isOfLaterPage: boolean) {
    super();
    this.isOfLaterPage = isOfLaterPage;
  }
}
