import { globMatches } from '@bundoc/shared/contract/grants';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AuditQuery } from '../audit.ts';
import { cursorOf, type FilteredPage } from '../page.ts';
import type { KmsStore } from '../port.ts';

/**
 * Number of keys in {@link FilledStore}, with names `a.000000`, `b.000001`, …: the number of each is 37
 * times its place, modulo this.
 */
export const NAMES = 25_000;
/**
 * Number of its records, alternating between five keys and two actors. Each 9000th is CRITICAL, the others
 * are INFO. They are from 2023, one second apart.
 */
export const RECORDS = 25_000;

/** A store with many rows that were inserted directly: keys and records, and no others. */
export interface FilledStore extends AsyncDisposable {
  readonly store: KmsStore;
}

/** All items of a paged list, and the number of short pages before the last one. */
async function walk<T, Cursor>(
  read: (after: Cursor | undefined) => Promise<FilteredPage<T, Cursor>>,
  limit: number,
  cursorOfItem: (item: T) => Cursor,
): Promise<{ items: T[]; short: number }> {
  const items: T[] = [];
  let short = 0;
  for (let after: Cursor | undefined; ; ) {
    const page = await read(after);
    expect(page.items.length).toBeLessThanOrEqual(limit);
    items.push(...page.items);
    after = cursorOf(page, cursorOfItem);
    if (after === undefined) return { items, short };
    if (page.items.length < limit) short++;
  }
}

/** The contract for lists that select few of many rows: all matches, in pages with bounded work. */
export function filteredListConformance(name: string, fill: () => Promise<FilledStore>): void {
  let filled: FilledStore;
  beforeAll(async () => {
    filled = await fill();
  });
  afterAll(() => filled?.[Symbol.asyncDispose]());

  describe(`a filtered list of ${name}`, () => {
    const keys = (globs: string[], limit: number) =>
      walk(
        (after: string | undefined) => filled.store.listKeys(globs, { after, limit }),
        limit,
        ({ name }) => name,
      );
    const records = (query: Omit<AuditQuery, 'limit' | 'after'>, limit: number) =>
      walk(
        (after: number | undefined) => filled.store.listAudit({ ...query, after, limit }),
        limit,
        ({ seq }) => seq,
      );

    it('has the keys that match its globs, each once and in order', async () => {
      const all = (await keys(['*'], 500)).items.map(({ name }) => name);
      expect(all).toHaveLength(NAMES);
      const part = fc.string({ unit: fc.constantFrom('a', 'b', '.', '0', '1', '5', 'f', '*'), maxLength: 6 });
      const exact = fc.nat(NAMES - 1).map((at) => String(all[at]));
      const glob = fc.oneof(
        part.filter(Boolean),
        exact,
        exact.chain((name) => fc.nat(8).map((cut) => `${name.slice(0, cut)}*`)),
      );
      await fc.assert(
        fc.asyncProperty(
          fc.array(glob, { maxLength: 12 }),
          fc.integer({ min: 200, max: 500 }),
          async (globs, limit) => {
            const found = (await keys(globs, limit)).items.map(({ name }) => name);
            expect(found).toEqual(all.filter((name) => globs.some((one) => globMatches(one, name))));
          },
        ),
        { numRuns: 15 },
      );
    });

    it('of keys reads a bounded number of names for a page', async () => {
      expect(await filled.store.listKeys(['*zzz'], { limit: 10 })).toMatchObject({ items: [], more: true });
      expect(await keys(['*zzz'], 10)).toEqual({ items: [], short: 1 });
      const many = Array.from({ length: 100 }, (_, at) => `*${at}zzz`);
      expect(await keys(many, 10)).toEqual({ items: [], short: NAMES / 200 });
    });

    it('of keys reads only names that may match', async () => {
      expect(await filled.store.listKeys(['zzz*', 'c.000001', 'x'], { limit: 10 })).toMatchObject({
        more: false,
      });
      const { items, short } = await keys(['a.00001*', 'c.0061*'], 10);
      expect([items.length > 0, short]).toEqual([true, 0]);
    });

    it.each<[string, Omit<AuditQuery, 'limit' | 'after'>, (seq: number) => boolean, number]>([
      ['severity', { severity: 'CRITICAL' }, (seq) => seq % 9_000 === 0, 2],
      ['an unknown actor', { actor: 'nobody' }, () => false, 0],
      ['an actor and a severity', { actor: 'actor-0', severity: 'CRITICAL' }, (seq) => seq % 9_000 === 0, 1],
      ['a time in the future', { from: '2999-01-01T00:00:00.000Z' }, () => false, 2],
      ['a time in the past', { to: '2000-01-01T00:00:00.000Z' }, () => false, 2],
      ['a key alone', { key: 'k3' }, (seq) => seq % 5 === 3, 0],
    ])(
      'of the audit by %s reads a bounded number of records for a page',
      async (_what, query, isMatch, short) => {
        const found = await records(query, 100);
        const seqs = Array.from({ length: RECORDS }, (_, at) => at + 1).filter(isMatch);
        expect(found.items.map(({ seq }) => seq)).toEqual(seqs);
        expect(found.short).toBe(short);
      },
    );
  });
}
