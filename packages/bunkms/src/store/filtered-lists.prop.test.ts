import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { globMatches } from '@bundoc/shared/grants';
import { PATIENT_MS } from '@bundoc/shared/testing/patient';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AuditQuery, cursorOf, type FilteredPage, type KmsStore } from './port.ts';
import { databasePathOf, openSqliteStore } from './sqlite.ts';

const NAMES = 25_000;
const RECORDS = 25_000;
let folder: string;
let store: KmsStore;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-lists-'));
  store = await openSqliteStore({ dataDir: folder, onCrash: () => undefined, deadlineMs: PATIENT_MS });
  await store.probe();
  const database = new DatabaseSync(databasePathOf(folder), { timeout: PATIENT_MS });
  database.exec(`
    BEGIN;
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${NAMES - 1})
    INSERT INTO keys (name, id, type, state, version, created_at)
      SELECT char(97 + i % 3) || printf('.%06x', i * 37 % ${NAMES}), 'id-' || i, 'aes-256', 'enabled', 1, '2026-01-01T00:00:00.000Z' FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${RECORDS})
    INSERT INTO audit (seq, time, severity, action, outcome, actor, key, prev_hash, hash)
      SELECT i, strftime('%Y-%m-%dT%H:%M:%fZ', 1700000000 + i, 'unixepoch'), iif(i % 9000 = 0, 'CRITICAL', 'INFO'), 'key.read', 'allowed',
        'actor-' || (i % 2), 'k' || (i % 5), '', '' FROM n;
    COMMIT`);
  database.close();
});
afterAll(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

/** All that the pages of a list have, and how many of them were short though there was more. */
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

describe('a list that is filtered', () => {
  const keys = (globs: string[], limit: number) =>
    walk(
      (after: string | undefined) => store.listKeys(globs, { after, limit }),
      limit,
      ({ name }) => name,
    );
  const records = (query: Omit<AuditQuery, 'limit' | 'after'>, limit: number) =>
    walk(
      (after: number | undefined) => store.listAudit({ ...query, after, limit }),
      limit,
      ({ seq }) => seq,
    );

  test('has the keys that globs match, each once and in order, whatever the globs', async () => {
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

  test('of keys looks at a bounded number of names for a page', async () => {
    expect(await store.listKeys(['*zzz'], { limit: 10 })).toMatchObject({ items: [], more: true });
    expect(await keys(['*zzz'], 10)).toEqual({ items: [], short: 1 });
    const many = Array.from({ length: 100 }, (_, at) => `*${at}zzz`);
    expect(await keys(many, 10)).toEqual({ items: [], short: NAMES / 200 });
  });

  test('of keys looks at no name but those that may match', async () => {
    expect(await store.listKeys(['zzz*', 'c.000001', 'x'], { limit: 10 })).toMatchObject({ more: false });
    const { items, short } = await keys(['a.00001*', 'c.0061*'], 10);
    expect([items.length > 0, short]).toEqual([true, 0]);
  });

  test.each<[string, Omit<AuditQuery, 'limit' | 'after'>, (seq: number) => boolean, number]>([
    ['severity', { severity: 'CRITICAL' }, (seq) => seq % 9_000 === 0, 2],
    ['an actor that there is not', { actor: 'nobody' }, () => false, 0],
    ['an actor and a severity', { actor: 'actor-0', severity: 'CRITICAL' }, (seq) => seq % 9_000 === 0, 1],
    ['a time in the future', { from: '2999-01-01T00:00:00.000Z' }, () => false, 2],
    ['a time in the past', { to: '2000-01-01T00:00:00.000Z' }, () => false, 2],
    ['a key alone', { key: 'k3' }, (seq) => seq % 5 === 3, 0],
  ])(
    'of the audit by %s looks at a bounded number of records for a page',
    async (_what, query, isMatch, short) => {
      const found = await records(query, 100);
      const seqs = Array.from({ length: RECORDS }, (_, at) => at + 1).filter(isMatch);
      expect(found.items.map(({ seq }) => seq)).toEqual(seqs);
      expect(found.short).toBe(short);
    },
  );
});
