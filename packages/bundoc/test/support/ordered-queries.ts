import type { DefinedStore } from '../../src/collections/defined-store.ts';
import { cursorsOf } from '../../src/crypto/sealed-cursor.ts';
import { SCAN_LIMITS } from '../../src/queries/scan-budget.ts';
import { whereSchema } from '../../src/queries/where.ts';
import { Queries } from '../../src/service/queries.ts';
import type { PostgresProject } from '../../src/testing/postgres-project.ts';
import { readValue } from '../../src/values/value.ts';
import { ownWork } from '../../src/work/scheduler.ts';

export interface Asked {
  readonly where: string;
  readonly orderBy?: readonly { readonly field: string; readonly direction: 'asc' | 'desc' }[];
  readonly limit?: number;
  readonly bytesMax?: number;
}

export interface Answered {
  readonly ids: readonly string[];
  /** Damaged documents that were left out. */
  readonly unreadable: readonly string[];
  readonly pages: number;
  /** The index of the last page, and whether it gave the order. */
  readonly index: string | null;
  readonly isOrdered: boolean;
  readonly texts: readonly string[];
}

/** Asks a query page by page to its end. Undefined for one that is refused as invalid. */
export async function ask(
  store: DefinedStore,
  project: PostgresProject,
  { where, orderBy = [], limit = 100, bytesMax = 10_000_000 }: Asked,
): Promise<Answered | undefined> {
  const parsed = whereSchema.safeParse(readValue(where));
  if (!parsed.success) return undefined;
  const lease = {
    store,
    cursors: cursorsOf(project.project, project.cipher),
    isUsable: () => true,
    [Symbol.dispose]: () => undefined,
  };
  const queries = new Queries({ acquire: async () => lease }, { ...SCAN_LIMITS, bytesMax: 100_000_000 });
  const texts: string[] = [];
  const ids: string[] = [];
  const unreadable: string[] = [];
  for (let pages = 1, cursor: string | undefined; ; pages++) {
    using work = ownWork(project.project)('query');
    const page: Awaited<ReturnType<Queries['query']>> = await queries.query({
      project: project.project,
      collection: 'notes',
      where: parsed.data,
      whereText: where,
      work,
      orderBy: [...orderBy],
      limit,
      bytesMax,
      cursor,
      fields: undefined,
    });
    ids.push(...page.documents.map(({ metadata }) => metadata._id));
    texts.push(...page.documents.map(({ text }) => text.toString()));
    unreadable.push(...(page.unreadable ?? []));
    cursor = page.next;
    const { index, order } = page.explanation;
    if (cursor === undefined) return { ids, texts, unreadable, pages, index, isOrdered: order === 'index' };
  }
}
