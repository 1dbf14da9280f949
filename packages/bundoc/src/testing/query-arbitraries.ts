import fc from 'fast-check';

/** Texts of JSON numbers that tend to collide, to be close, and to be more than a double holds. */
const numberText = fc.oneof(
  fc.constantFrom('0', '-0', '1', '1.0', '1e0', '10e-1', '2', '-1', '-1.5', '0.1', '0.10', '100', '1E2'),
  fc.constantFrom(
    '12345678901234567890',
    '12345678901234567891',
    '1234567890123456789e1',
    '9007199254740993',
  ),
  fc.constantFrom(
    '9007199254740992',
    '0.1000000000000000000001',
    '-0.1000000000000000000001',
    '1e25',
    '1e-25',
  ),
  fc.integer({ min: -3, max: 12 }).map(String),
);
/** Strings whose order by UTF-16 units is another than by code points, among others. */
const string = fc.constantFrom(
  '',
  'a',
  'ab',
  'abc',
  'b',
  'A',
  '\u0000',
  'a\u0000',
  '\uffff',
  '\u{10000}',
  '\u{1f600}x',
  'é',
  'É',
  'aß',
  'ASS',
  'ς',
  'ΣA',
  'İ',
  'i\u0307',
  '1',
);
const scalarText = fc.oneof(
  { weight: 4, arbitrary: numberText },
  { weight: 3, arbitrary: string.map((text) => JSON.stringify(text)) },
  { weight: 2, arbitrary: fc.constantFrom('null', 'true', 'false') },
);
const names = fc.constantFrom('a', 'b', 'c', '0', '1');

const { value } = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    { weight: 4, arbitrary: scalarText },
    {
      weight: 2,
      arbitrary: fc.array(tie('value'), { maxLength: 3 }).map((items) => `[${items.join(' , ')}]`),
    },
    { weight: 2, arbitrary: fc.dictionary(names, tie('value'), { maxKeys: 3 }).map(objectText) },
  ),
}));

function objectText(members: Record<string, string>): string {
  return `{${Object.entries(members)
    .map(([name, text]) => `${JSON.stringify(name)}:${text}`)
    .join(', ')}}`;
}

/** Texts of any JSON values. */
export const valueText = value;
/** Texts of documents' own members, of few names so that conditions meet them. */
export const documentText = fc.dictionary(names, value, { minKeys: 0, maxKeys: 4 }).map(objectText);
/** The same without arrays and objects: such documents have one entry in each index. */
export const flatText = fc.dictionary(names, scalarText, { minKeys: 0, maxKeys: 4 }).map(objectText);
/** Paths that may lead somewhere. */
const path = fc.array(names, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('.'));

const TEXTUAL: readonly string[] = ['$beginsWith', '$contains', '$endsWith'];

const { where } = fc.letrec<{ tests: string; test: readonly [string, string]; where: string }>((tie) => ({
  test: fc.oneof(
    fc.tuple(fc.constantFrom('$eq', '$ne', '$gt', '$gte', '$lt', '$lte'), value),
    fc.tuple(
      fc.constantFrom('$in', '$nin', '$all'),
      fc.array(value, { maxLength: 3 }).map((all) => `[${all.join(',')}]`),
    ),
    fc.tuple(fc.constant('$exists'), fc.constantFrom('true', 'false')),
    fc.tuple(
      fc.constant('$type'),
      fc.constantFrom('"null"', '"number"', '"array"', '["string","object"]', '"boolean"'),
    ),
    fc.tuple(fc.constant('$size'), fc.constantFrom('0', '1', '2', '3')),
    {
      weight: 3,
      arbitrary: fc.tuple(
        fc.constantFrom(...TEXTUAL),
        string.map((text) => JSON.stringify(text)),
      ),
    },
    fc.tuple(
      fc.constant('$mod'),
      fc
        .tuple(fc.constantFrom('2', '-3', '7', '1e1'), fc.constantFrom('0', '1', '-1', '5'))
        .map((both) => `[${both}]`),
    ),
    fc.tuple(fc.constantFrom('$not', '$elemMatch'), tie('tests')),
    fc.tuple(fc.constant('$elemMatch'), tie('where')),
  ),
  tests: fc.uniqueArray(tie('test'), { minLength: 1, maxLength: 2, selector: ([op]) => op }).chain((all) =>
    fc.boolean().map((folds): string => {
      const ofText = all.some(([op]) => TEXTUAL.includes(op));
      return objectText({ ...Object.fromEntries(all), ...(folds && ofText ? { $options: '"i"' } : {}) });
    }),
  ),
  where: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    {
      weight: 4,
      arbitrary: fc
        .dictionary(path, fc.oneof(tie('tests'), tie('tests'), value), { minKeys: 1, maxKeys: 2 })
        .map(objectText),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.constantFrom('$and', '$or', '$nor'), fc.array(tie('where'), { minLength: 1, maxLength: 3 }))
        .map(([op, clauses]) => `{"${op}":[${clauses.join(',')}]}`),
    },
  ),
}));

/** Texts of conditions. */
export const whereText = where;
