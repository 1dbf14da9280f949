import type { Test, Where } from './where.ts';

/**
 * Fields that an index could find the documents of a condition by: those that must be so for the condition to
 * hold, the ones that are to be equal first, as they stand first in a good index.
 */
export function fieldsOf(where: Where): string[] {
  const equal: string[] = [];
  const ranged: string[] = [];
  collect(where, equal, ranged);
  return [...equal, ...ranged];
}

function collect(where: Where, equal: string[], ranged: string[]): void {
  if (where.kind === 'and') for (const clause of where.clauses) collect(clause, equal, ranged);
  if (where.kind !== 'field') return;
  const field = where.path.join('.');
  if (where.tests.some(isEquality)) equal.push(field);
  else if (where.tests.some(isRange)) ranged.push(field);
}

function isEquality({ op }: Test): boolean {
  return op === '$eq' || op === '$in' || op === '$all';
}

function isRange({ op }: Test): boolean {
  return op === '$gt' || op === '$gte' || op === '$lt' || op === '$lte' || op === '$beginsWith';
}
