import { mayMeet } from '../values/path.ts';
import type { Test, Where } from './where.ts';

/** Looks that an operator takes whose values are compared by what they are encoded as. */
const ENCODED = 4;

/**
 * Looks that a condition takes at a value at most: one for each operator, more for those that take longer.
 */
export function operatorsOf(where: Where): number {
  if (where.kind !== 'field') return where.clauses.reduce((sum, clause) => sum + operatorsOf(clause), 0);
  // Where ways meet, a value is looked at for each rest of the path.
  return ofTests(where.tests) * (mayMeet(where.path) ? where.path.length : 1);
}

function ofTests(tests: readonly Test[]): number {
  return tests.reduce((sum, test) => sum + ofTest(test), 0);
}

function ofTest(test: Test): number {
  switch (test.op) {
    case '$not':
      return ofTests(test.tests);
    case '$elemMatch':
      return 1 + ('where' in test ? operatorsOf(test.where) : ofTests(test.tests));
    case '$in':
    case '$nin':
    case '$all':
      return test.values.some((value) => typeof value === 'object' && value !== null) ? ENCODED : 1;
    default:
      return 1;
  }
}
