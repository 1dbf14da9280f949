import type { Test, Where } from './where.ts';

/** Operators that a condition holds a value against at most. */
export function operatorsOf(where: Where): number {
  if (where.kind === 'field') return ofTests(where.tests);
  return where.clauses.reduce((sum, clause) => sum + operatorsOf(clause), 0);
}

function ofTests(tests: readonly Test[]): number {
  return tests.reduce((sum, test) => sum + ofTest(test), 0);
}

function ofTest(test: Test): number {
  if (test.op === '$not') return ofTests(test.tests);
  if (test.op !== '$elemMatch') return 1;
  return 1 + ('where' in test ? operatorsOf(test.where) : ofTests(test.tests));
}
