import { describe, expect, it } from 'vitest';
import { readValue } from '../values/value.ts';
import { whereSchema } from './where.ts';

const faultsOf = (text: string) => whereSchema.safeParse(readValue(text)).error?.issues ?? [];

describe('a condition', () => {
  it.each([
    ['{"a":{"$regex":"x"}}', 'a'],
    ['{"$where":"1"}', ''],
    ['{"$expr":{}}', ''],
    ['{"a":{"$gt":1,"b":2}}', 'a'],
    ['{"a":{"$in":5}}', 'a.$in'],
    ['{"a":{"$all":"x"}}', 'a.$all'],
    ['{"a":{"$exists":1}}', 'a.$exists'],
    ['{"a":{"$type":"int"}}', 'a.$type'],
    ['{"a":{"$type":[]}}', 'a.$type'],
    ['{"a":{"$size":"2"}}', 'a.$size'],
    ['{"a":{"$size":-1}}', 'a.$size'],
    ['{"a":{"$size":1.5}}', 'a.$size'],
    ['{"a":{"$size":12345678901234567890}}', 'a.$size'],
    ['{"a":{"$beginsWith":5}}', 'a.$beginsWith'],
    ['{"a":{"$beginsWith":"\\ud83d"}}', 'a.$beginsWith'],
    ['{"a":{"$contains":["b"]}}', 'a.$contains'],
    ['{"a":{"$endsWith":"\\ude00"}}', 'a.$endsWith'],
    ['{"a":{"$contains":"b","$options":"m"}}', 'a.$options'],
    ['{"a":{"$contains":"b","$options":true}}', 'a.$options'],
    ['{"a":{"$eq":"b","$options":"i"}}', 'a.$options'],
    ['{"a":{"$options":"i"}}', 'a.$options'],
    ['{"a":{"$mod":2}}', 'a.$mod'],
    ['{"a":{"$mod":[2]}}', 'a.$mod'],
    ['{"a":{"$mod":[2,0,0]}}', 'a.$mod'],
    ['{"a":{"$mod":["2",0]}}', 'a.$mod'],
    ['{"a":{"$mod":[2.5,0]}}', 'a.$mod'],
    ['{"a":{"$mod":[2,0.5]}}', 'a.$mod'],
    ['{"a":{"$mod":[1e15,0]}}', 'a.$mod'],
    ['{"a":{"$mod":[1e999999999999,0]}}', 'a.$mod'],
    ['{"a":{"$mod":[-0,0]}}', 'a.$mod.0'],
    ['{"a":{"$not":5}}', 'a.$not'],
    ['{"a":{"$not":{}}}', 'a.$not'],
    ['{"a":{"$elemMatch":5}}', 'a.$elemMatch'],
    ['{"a":{"$elemMatch":{"b":1,"$gt":2}}}', 'a.$elemMatch'],
    ['{"$and":{}}', '$and'],
    ['{"$or":[]}', '$or'],
    ['{"$and":[5]}', '$and.0'],
    ['{"a..b":1}', 'a..b'],
    ['{"":1}', ''],
    ['{"a.$x":1}', 'a.$x'],
    [`{"${'a.'.repeat(12)}a":1}`, `${'a.'.repeat(12)}a`],
    [`{"${'a'.repeat(513)}":1}`, 'a'.repeat(513)],
    ['5', ''],
    ['[]', ''],
  ])('is refused: %s', (text, place) => {
    expect(faultsOf(text).map(({ path }) => path.join('.'))).toEqual([place]);
  });

  it.each([
    [
      '{"title":{"$regex":"x"}}',
      '$regex: unknown; known are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $all, $exists, $type, $size, $mod, $beginsWith, $contains, $endsWith, $options, $elemMatch, $not; $beginsWith, $contains and $endsWith find parts of strings',
    ],
    ['{"title":{"$beginWith":"x"}}', '$beginWith (did you mean $beginsWith?): unknown; known are $eq, '],
    ['{"$expr":{}}', '$expr: unknown; known are $and, $or, $nor'],
    [
      '{"$text":{}}',
      '$text: unknown; known are $and, $or, $nor; $beginsWith, $contains and $endsWith find parts of strings',
    ],
    ['{"a.$x":1}', 'a name in a path must not begin with $'],
  ])('with an unknown operator is refused with the known ones: %s', (text, message) => {
    expect(faultsOf(text).map((fault) => fault.message)).toEqual([expect.stringContaining(message)]);
  });

  it('looks for at most 250 characters inside strings, counted after case folding, too', () => {
    const faults = (text: string, more = '') =>
      faultsOf(`{"a":{"$contains":"${text}"${more}}}`).map(({ message }) => message);
    expect(faults('x'.repeat(250))).toEqual([]);
    expect(faults('x'.repeat(251))).toEqual(['must have at most 250 characters']);
    expect(faults('ß'.repeat(125), ',"$options":"i"')).toEqual([]);
    expect(faults('ß'.repeat(126), ',"$options":"i"')).toEqual([
      'must have at most 250 characters, in which "ß" counts as "ss"',
    ]);
    expect(faultsOf(`{"a":{"$beginsWith":"${'x'.repeat(251)}"}}`)).toEqual([]);
  });

  it('leads to $beginsWith, $contains and $endsWith from the names of other stores', () => {
    for (const op of ['$regex', '$like', '$startsWith', '$search'])
      expect(faultsOf(`{"a":{"${op}":"x"}}`)[0]?.message).toContain(
        '$beginsWith, $contains and $endsWith find parts of strings',
      );
    expect(faultsOf('{"a":{"$contain":"x"}}')[0]?.message).toContain('did you mean $contains?');
  });

  it.each(['$in', '$nin', '$all'])('is refused when %s lists operators, as beside other members', (op) => {
    for (const value of ['{"$gt":1}', '{"b":1,"$gt":1}'])
      expect(faultsOf(`{"a":{"${op}":[1,${value}]}}`)).toMatchObject([
        { path: ['a', op], message: 'must hold values, not operators; use "$eq" for an object' },
      ]);
    expect(faultsOf(`{"a":{"${op}":[1,{"b":{"$gt":1}},{}]}}`)).toEqual([]);
    expect(faultsOf('{"a":{"$eq":{"$gt":1}}}')).toEqual([]);
  });

  it('has at most 100 operators, 1,000 listed values, and nests at most 10 deep', () => {
    const many = (count: number) => `{"$and":[${Array.from({ length: count }, () => '{"a":1}').join(',')}]}`;
    expect([faultsOf(many(99)).length, faultsOf(many(100)).length]).toEqual([0, 1]);
    const empty = (count: number) => `{"$or":[${Array.from({ length: count }, () => '{}').join(',')}]}`;
    expect([faultsOf(empty(99)).length, faultsOf(empty(100)).length]).toEqual([0, 1]);
    const listed = (count: number) =>
      `{"a":{"$in":[${Array.from({ length: count }, (_, n) => n).join(',')}]}}`;
    expect([faultsOf(listed(1_000)).length, faultsOf(listed(1_001)).length]).toEqual([0, 1]);
    const deep = (count: number) => `${'{"$or":['.repeat(count)}{"a":1}${']}'.repeat(count)}`;
    expect([faultsOf(deep(10)).length, faultsOf(deep(11)).length]).toEqual([0, 1]);
  });

  it('treats an object without operators as a value for equality', () => {
    expect(whereSchema.parse(readValue('{"a":{"b":{"$gt":1}},"c":{}}'))).toEqual({
      kind: 'and',
      clauses: [
        { kind: 'field', path: ['a'], tests: [{ op: '$eq', value: { b: { $gt: 1 } } }] },
        { kind: 'field', path: ['c'], tests: [{ op: '$eq', value: {} }] },
      ],
    });
  });
});
