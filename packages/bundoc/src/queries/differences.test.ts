import { readFileSync } from 'node:fs';
import { orderBySchema } from '@bundoc/shared/contract/query';
import { describe, expect, it } from 'vitest';
import { readValue } from '../values/value.ts';
import { compileWhere } from './evaluate.ts';
import { orderOf, sortKey } from './order.ts';
import { whereSchema } from './where.ts';

const page = readFileSync(new URL('../../../../docs/query.md', import.meta.url), 'utf8');
const section = page.slice(page.indexOf('## Differences from MongoDB')).split('\n## ')[0] ?? '';
const rows = section
  .split('\n')
  .filter((line) => line.startsWith('| ') && line.includes('| `'))
  .map((line) => line.split(' | '));
const codesOf = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, code]) => String(code));

/** The documents that match a condition; or all of them in an order, given as an array. */
function given(documents: readonly string[], query: string): string[] {
  if (!query.startsWith('[')) {
    const isMet = compileWhere(whereSchema.parse(readValue(query)));
    return documents.filter((document) => isMet(readValue(document)));
  }
  const order = orderOf(orderBySchema.parse(JSON.parse(query)));
  const keys = documents.map((document, at) => [sortKey(order, readValue(document), at), document] as const);
  return keys.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, document]) => document);
}

describe('the differences from MongoDB that docs/query.md lists', () => {
  it.each(rows)('hold: %s', (_what, documents, query, found) => {
    const [asked] = codesOf(query);
    expect(given(codesOf(documents), String(asked))).toEqual(codesOf(found));
  });

  it('include types, objects, arrays, null and absence', () => {
    expect(rows).toHaveLength(10);
    const wanted = ['order of types', 'sorted names', '`orderBy` takes an array', '`$gte`', 'absent'];
    for (const what of wanted) expect(rows.some(([cell]) => cell?.includes(what))).toBe(true);
  });
});
