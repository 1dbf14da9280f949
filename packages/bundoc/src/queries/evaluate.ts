import { compareValues, equalValues, isSameType } from '../values/compare.ts';
import { foldCase } from '../values/fold-case.ts';
import { encodeExactly } from '../values/key.ts';
import { mayRevisit, someAt, someOrElementAt } from '../values/path.ts';
import { remainderBy } from '../values/remainder.ts';
import { isArray, isNumber, isObject, type ObjectValue, typeOf, type Value } from '../values/value.ts';
import type { Comparison, Test, TextOperator, Where } from './where.ts';

export type Predicate = (value: Value) => boolean;

/** The values at a path, or a single element of an array. */
interface Found {
  /** Tests each value, and the elements of those that are arrays. */
  some(holds: Predicate): boolean;
  /** Tests each value. */
  someWhole(holds: Predicate): boolean;
}

/** The condition as a function of a document. Docs: docs/query.md. */
export function compileWhere(where: Where): Predicate {
  return compile(where, false);
}

/** @param isMet whether the same value may be reached along several ways; then results are cached. */
function compile(where: Where, isMet: boolean): Predicate {
  if (where.kind === 'field') {
    const { path } = where;
    const holds = compileTests(where.tests, isMet || mayRevisit(path));
    return (document) =>
      holds({
        some: (predicate) => someOrElementAt(document, path, predicate),
        someWhole: (predicate) => someAt(document, path, predicate),
      });
  }
  const clauses = where.clauses.map((clause) => compile(clause, isMet));
  switch (where.kind) {
    case 'and':
      return (document) => clauses.every((holds) => holds(document));
    case 'or':
      return (document) => clauses.some((holds) => holds(document));
    case 'nor':
      return (document) => !clauses.some((holds) => holds(document));
  }
}

function compileTests(tests: readonly Test[], isMet: boolean): (found: Found) => boolean {
  const compiled = tests.map((test) => compileTest(test, isMet));
  const [only] = compiled;
  if (compiled.length === 1 && only !== undefined) return only;
  return (found) => compiled.every((holds) => holds(found));
}

function compileTest(test: Test, isMet: boolean): (found: Found) => boolean {
  switch (test.op) {
    case '$eq':
    case '$gt':
    case '$gte':
    case '$lt':
    case '$lte': {
      const holds = comparison(test.op, test.value);
      return (found) => found.some(holds);
    }
    case '$ne': {
      const holds = comparison('$eq', test.value);
      return (found) => !found.some(holds);
    }
    case '$in': {
      const holds = oneOf(test.values);
      return (found) => found.some(holds);
    }
    case '$nin': {
      const holds = oneOf(test.values);
      return (found) => !found.some(holds);
    }
    case '$all': {
      const set = setOf(test.values);
      return (found) => test.values.length > 0 && hasAll(found, set);
    }
    case '$exists': {
      const { exists } = test;
      return (found) => found.someWhole(() => true) === exists;
    }
    case '$type': {
      const types = new Set<string>(test.types);
      return (found) => found.some((value) => types.has(typeOf(value)));
    }
    case '$size': {
      const { size } = test;
      return (found) => found.someWhole((value) => isArray(value) && value.length === size);
    }
    case '$beginsWith':
    case '$contains':
    case '$endsWith': {
      const holds = partTest(test.op, test.text, test.ignoresCase);
      return (found) => found.some((value) => typeof value === 'string' && holds(value));
    }
    case '$mod': {
      const remainderOf = remainderBy(test.divisor);
      return (found) => found.some((value) => isNumber(value) && remainderOf(value) === test.remainder);
    }
    case '$not': {
      const holds = compileTests(test.tests, isMet);
      return (found) => !holds(found);
    }
    case '$elemMatch': {
      const holds =
        'where' in test ? compileElement(test.where, isMet) : compileElementTests(test.tests, isMet);
      return (found) => found.someWhole((value) => isArray(value) && value.some(holds));
    }
  }
}

/** Tests an element with members; other elements have no paths. */
function compileElement(where: Where, isMet: boolean): Predicate {
  const holds = compile(where, isMet);
  if (!isMet) return (element) => isContainer(element) && holds(element);
  // Elements of documents are new objects each time, so entries disappear with them.
  const known = new WeakMap<object, boolean>();
  return (element) => {
    if (!isContainer(element)) return false;
    const before = known.get(element);
    if (before !== undefined) return before;
    const result = holds(element);
    known.set(element, result);
    return result;
  };
}

function isContainer(value: Value): value is readonly Value[] | ObjectValue {
  return isObject(value) || isArray(value);
}

/** Tests an element itself, without the elements of a nested array. */
function compileElementTests(tests: readonly Test[], isMet: boolean): Predicate {
  const holds = compileTests(tests, isMet);
  return (element) => {
    const some = (predicate: Predicate) => predicate(element);
    return holds({ some, someWhole: some });
  };
}

/** A test of a string for a part of it. @param text is folded already where the case is ignored. */
function partTest(op: TextOperator, text: string, ignoresCase: boolean): (value: string) => boolean {
  const { length } = text;
  switch (op) {
    case '$contains':
      return ignoresCase ? (value) => foldCase(value).includes(text) : (value) => value.includes(text);
    // Folding shortens no string, so what is behind as many units does not matter.
    case '$beginsWith':
      if (!ignoresCase) return (value) => value.startsWith(text);
      return (value) => foldCase(value.slice(0, length)).startsWith(text);
    case '$endsWith':
      if (!ignoresCase) return (value) => value.endsWith(text);
      return (value) => foldCase(value.slice(Math.max(0, value.length - length))).endsWith(text);
  }
}

function comparison(op: Exclude<Comparison, '$ne'>, operand: Value): Predicate {
  switch (op) {
    case '$eq':
      return (value) => equalValues(value, operand);
    case '$gt':
      return (value) => isSameType(value, operand) && compareValues(value, operand) > 0;
    case '$gte':
      return (value) => isSameType(value, operand) && compareValues(value, operand) >= 0;
    case '$lt':
      return (value) => isSameType(value, operand) && compareValues(value, operand) < 0;
    case '$lte':
      return (value) => isSameType(value, operand) && compareValues(value, operand) <= 0;
  }
}

/** Equality with one of many values. Its time depends on the size of the value, not on their number. */
function oneOf(values: readonly Value[]): Predicate {
  const set = setOf(values);
  return (value) => (isPlain(value) ? set.plain.has(value) : holdsExactly(set, value));
}

/** Whether all of the values are found, in one pass. */
function hasAll(found: Found, { plain, exact }: ValueSet): boolean {
  const met = new Set<Value>();
  const metExactly = new Set<string>();
  return found.some((value) => {
    if (isPlain(value)) {
      if (plain.has(value)) met.add(value);
    } else if (exact.size > 0) {
      const encoded = encodeExactly(value);
      if (exact.has(encoded)) metExactly.add(encoded);
    }
    return met.size + metExactly.size === plain.size + exact.size;
  });
}

/** A set of values with lookup by equality: plain ones directly, others by their encoding. */
interface ValueSet {
  readonly plain: Set<Value>;
  readonly exact: Set<string>;
}

function setOf(values: readonly Value[]): ValueSet {
  return {
    plain: new Set(values.filter(isPlain)),
    exact: new Set(values.filter((value) => !isPlain(value)).map(encodeExactly)),
  };
}

function holdsExactly({ exact }: ValueSet, value: Value): boolean {
  return exact.size > 0 && exact.has(encodeExactly(value));
}

/** Whether only the identical value is equal to it. */
function isPlain(value: Value): boolean {
  return typeof value !== 'object' || value === null;
}
