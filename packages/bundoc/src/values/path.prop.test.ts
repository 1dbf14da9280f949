import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileWhere } from '../queries/evaluate.ts';
import { whereSchema } from '../queries/where.ts';
import { valueText } from '../testing/query-arbitraries.ts';
import { PATH_DEPTH_MAX, type Path, someAt, valueAt } from './path.ts';
import { isArray, isObject, readValue, type Value } from './value.ts';

/** The values at a path in the order of the documented walk, each as often as a way leads to it. */
function allAt(value: Value, path: Path, depth = 0): Value[] {
  const name = path[depth];
  if (name === undefined) return [value];
  if (isArray(value)) {
    const at = /^(?:0|[1-9]\d*)$/.test(name) ? value[Number(name)] : undefined;
    return [
      ...(at === undefined ? [] : allAt(at, path, depth + 1)),
      ...value.filter(isObject).flatMap((element) => allAt(element, path, depth)),
    ];
  }
  return isObject(value) && Object.hasOwn(value, name) ? allAt(value[name] as Value, path, depth + 1) : [];
}

const deepPath = fc.array(fc.constantFrom('0', '0', '1', 'a'), { minLength: 1, maxLength: 6 });
/** Objects with the name `0` in arrays, where ways meet again. */
const { meeting } = fc.letrec<{ meeting: string }>((tie) => ({
  meeting: fc.oneof(
    { maxDepth: 8, depthSize: 'medium' },
    valueText,
    fc.array(tie('meeting'), { minLength: 1, maxLength: 2 }).map((items) => `[${items.join()}]`),
    tie('meeting').map((inner) => `{"0":${inner}}`),
  ),
}));

/** A value that counts visits to anything in it. */
function counted(value: Value): { readonly value: Value; readonly looks: () => number } {
  let looks = 0;
  const wrap = (inner: Value): Value =>
    typeof inner !== 'object' || inner === null
      ? inner
      : (new Proxy(inner, {
          get: (target, name) => {
            looks++;
            return Reflect.get(target, name);
          },
        }) as Value);
  const walk = (inner: Value): Value => {
    if (isArray(inner)) return wrap(inner.map(walk));
    if (!isObject(inner)) return inner;
    return wrap(Object.fromEntries(Object.entries(inner).map(([name, one]) => [name, walk(one)])));
  };
  return { value: walk(value), looks: () => looks };
}

/** `{"0":[{"0":[…]}]}` with this depth, around many small objects. */
function nested(levels: number, width: number): string {
  if (levels === 0) return Array<string>(width).fill('{"0":1}').join();
  return `{"0":[${nested(levels - 1, width)}]}`;
}

describe('a path', () => {
  it('leads to the values of the documented walk, in its order, and to no others', () => {
    fc.assert(
      fc.property(meeting, deepPath, (text, path) => {
        const value = readValue(text);
        const expected = allAt(value, path);
        expect(valueAt(value, path)).toBe(expected[0]);
        const found: Value[] = [];
        someAt(value, path, (one) => {
          found.push(one);
          return false;
        });
        expect(new Set(found)).toEqual(new Set(expected));
      }),
      { numRuns: 2_000 },
    );
  });

  it('is followed once to each place for each rest of it, however many ways lead there', () => {
    const width = 1_000;
    const { value, looks } = counted(readValue(nested(8, width)));
    const path = Array<string>(PATH_DEPTH_MAX).fill('0');
    someAt(value, path, () => false);
    // Five rests of the path lead to the objects, on 163 ways.
    expect(looks()).toBeLessThan(5 * width * 5);
  });

  it('is followed once to each place for each condition when it leads through conditions on elements', () => {
    const { value, looks } = counted(readValue(nested(40, 1)));
    const path = Array<string>(8).fill('0').join('.');
    let condition = `{"${path}":{"$gt":5}}`;
    for (let depth = 0; depth < 4; depth++) condition = `{"${path}":{"$elemMatch":${condition}}}`;
    const holds = compileWhere(whereSchema.parse(readValue(condition)));
    expect(holds(value)).toBe(false);
    // 80 containers, five conditions, paths of eight names.
    expect(looks()).toBeLessThan(80 * 5 * 8 * 10);
  });
});
