import { describe, expect, it } from 'vitest';
import { readValue, type Value } from '../values/value.ts';
import { compileWhere } from './evaluate.ts';
import { type Test, whereSchema } from './where.ts';

const LISTED = Array.from({ length: 1_000 }, (_, n) => n);

function holds(test: Test, items: readonly Value[]): boolean {
  return compileWhere({ kind: 'field', path: ['a'], tests: [test] })({ a: items });
}

describe('conditions with lists of many values', () => {
  it('test each element once, however many values $in lists', () => {
    let looks = 0;
    const element = new Proxy({ x: -1 } as Record<string, Value>, {
      ownKeys: (target) => {
        looks++;
        return Reflect.ownKeys(target);
      },
    });
    expect(holds({ op: '$in', values: LISTED.map((x) => ({ x })) }, [element])).toBe(false);
    // The array is a value as well.
    expect(looks).toBeLessThanOrEqual(2);
  });

  it('pass over an array once, however many values $all lists', () => {
    let walks = 0;
    const items = Object.assign(Array.from({ length: 10 }, () => -1).concat(LISTED), {
      some(this: Value[], ...args: Parameters<Value[]['some']>) {
        walks++;
        return Array.prototype.some.apply(this, args);
      },
    });
    expect(holds({ op: '$all', values: LISTED }, items)).toBe(true);
    expect(walks).toBe(1);
    expect(holds({ op: '$all', values: [...LISTED, 1_000] }, items)).toBe(false);
  });

  it('distinguish values of different types with the same encoding', () => {
    expect(holds({ op: '$in', values: [[1], { a: 1 }] }, [[1]])).toBe(true);
    expect(holds({ op: '$all', values: ['1', [1], { b: 2, a: 1 }] }, ['1', { a: 1, b: 2 }, [1]])).toBe(true);
    expect(holds({ op: '$all', values: ['1', [1]] }, [1, [1]])).toBe(false);
  });
});

/** Which of the JSON values the operators select. */
function selected(operators: string, values: readonly string[]): string[] {
  const isMet = compileWhere(whereSchema.parse(readValue(`{"a":${operators}}`)));
  return values.filter((value) => isMet(readValue(`{"a":${value}}`)));
}

describe('$contains, $beginsWith and $endsWith', () => {
  const texts = ['"Hello"', '"say Hello"', '"hello"', '"Hello you"', '""', '5', 'null', '["x","Hello"]'];

  it.each([
    ['{"$contains":"Hello"}', ['"Hello"', '"say Hello"', '"Hello you"', '["x","Hello"]']],
    ['{"$beginsWith":"Hello"}', ['"Hello"', '"Hello you"', '["x","Hello"]']],
    ['{"$endsWith":"Hello"}', ['"Hello"', '"say Hello"', '["x","Hello"]']],
    ['{"$endsWith":"Hello","$contains":"say"}', ['"say Hello"']],
    ['{"$contains":"x Hello"}', []],
    ['{"$contains":"5"}', []],
    ['{"$not":{"$contains":"e"}}', ['""', '5', 'null']],
    ['{"$elemMatch":{"$contains":"x"}}', ['["x","Hello"]']],
  ])('find a part of a string, or of an element that is one: %s', (operators, found) => {
    expect(selected(operators, texts)).toEqual(found);
  });

  it.each(['$contains', '$beginsWith', '$endsWith'])('find the empty text in every string: %s', (op) => {
    for (const more of ['', ',"$options":"i"'])
      expect(selected(`{"${op}":""${more}}`, texts)).toEqual(texts.filter((text) => text.includes('"')));
  });

  it.each([
    ['{"$contains":"strasse","$options":"i"}', ['"Große Straße"', '"STRASSE"', '"STRAẞE"']],
    ['{"$endsWith":"ße","$options":"i"}', ['"Große Straße"', '"STRASSE"', '"STRAẞE"']],
    ['{"$beginsWith":"GROSSE","$options":"i"}', ['"Große Straße"']],
    ['{"$contains":"s","$options":"i"}', ['"Große Straße"', '"STRASSE"', '"STRAẞE"', '"İstanbul"', '"ısı"']],
    ['{"$contains":"οδος","$options":"i"}', ['"ΟΔΟΣ"', '"οδοσα"']],
    ['{"$endsWith":"Σ","$options":"i"}', ['"ΟΔΟΣ"']],
    ['{"$beginsWith":"i","$options":"i"}', ['"İstanbul"', '"ısı"']],
    ['{"$beginsWith":"is","$options":"i"}', ['"ısı"']],
    ['{"$beginsWith":"i̇s","$options":"i"}', ['"İstanbul"']],
    ['{"$endsWith":"i","$options":"i"}', ['"ısı"']],
    ['{"$endsWith":"𐐨","$options":"i"}', ['"x𐐀"']],
  ])('ignore the case of all scripts with $options: %s', (operators, found) => {
    const all = [
      '"Große Straße"',
      '"STRASSE"',
      '"STRAẞE"',
      '"ΟΔΟΣ"',
      '"οδοσα"',
      '"İstanbul"',
      '"ısı"',
      '"x𐐀"',
    ];
    expect(selected(operators, all)).toEqual(found);
  });

  it('ignore the case only of the operators that $options is beside', () => {
    const both = '{"$contains":"A","$not":{"$contains":"B"},"$options":"i"}';
    expect(selected(both, ['"ab"', '"aB"', '"xa"', '"x"'])).toEqual(['"ab"', '"xa"']);
  });
});

describe('$mod', () => {
  const large = ['12345678901234567892', '-12345678901234567892', '1e27', '1e999999999999'];
  const all = ['0', '8', '-8', '9', '90e-1', '-9', '9.5', '1e-3', '1e3', '"8"', 'null', '["x",4]', ...large];

  it.each([
    ['{"$mod":[4,0]}', ['0', '8', '-8', '1e3', '["x",4]', ...large]],
    ['{"$mod":[4,-0]}', ['0', '8', '-8', '1e3', '["x",4]', ...large]],
    ['{"$mod":[4,1]}', ['9', '90e-1']],
    ['{"$mod":[-4,1]}', ['9', '90e-1']],
    ['{"$mod":[4,-1]}', ['-9']],
    ['{"$mod":[7,3]}', ['12345678901234567892']],
    ['{"$mod":[7,-3]}', ['-12345678901234567892']],
    ['{"$mod":[7,6]}', ['1e3', '1e27', '1e999999999999']],
    ['{"$mod":[999999999999999,1000000000]}', ['1e999999999999']],
    ['{"$mod":[4,5]}', []],
  ])('finds whole numbers by their exact remainder, which has their sign: %s', (operators, found) => {
    expect(selected(operators, all)).toEqual(found);
  });
});
