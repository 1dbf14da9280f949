import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { equalNumbers } from './decimal.ts';
import { equalTrees } from './equal.ts';
import { parseTree, treeText, withItem, withMember, withoutItem, withoutMember } from './tree.ts';

const space = fc.constantFrom('', '', ' ', '\n  ', '\t');
const scalar = fc.oneof(
  fc.constantFrom(
    'null',
    'true',
    '0',
    '-0',
    '1.10',
    '1e400',
    '12345678901234567890',
    '"\\u0061\\"}]"',
    '"é"',
  ),
  fc.string().map((text) => JSON.stringify(text)),
);
const names = fc.constantFrom('a', 'b', 'c', 'd', '', '/', '~').map((name) => JSON.stringify(name));

/** Texts of values, with white space wherever it is allowed. */
const { value } = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    scalar,
    fc
      .array(fc.tuple(space, tie('value'), space), { maxLength: 4 })
      .map((items) => `[${items.map((parts) => parts.join('')).join(',')}]`),
    fc
      .uniqueArray(fc.tuple(space, names, space, space, tie('value'), space), {
        maxLength: 4,
        selector: ([, name]) => name,
      })
      .map(
        (list) => `{${list.map(([a, name, b, c, one, d]) => `${a}${name}${b}:${c}${one}${d}`).join(',')}}`,
      ),
  ),
}));

const object = value.filter((text) => text.startsWith('{'));
const array = value.filter((text) => text.startsWith('['));

describe('a tree', () => {
  it('returns the text that it was read from', () => {
    fc.assert(
      fc.property(value, (text) => {
        expect(treeText(parseTree(text))).toBe(text);
      }),
      { numRuns: 500 },
    );
  });

  it('returns the same text when each container is written again', () => {
    fc.assert(
      fc.property(value, (text) => {
        const rewritten = JSON.parse(JSON.stringify(parseTree(text)), (key, part) =>
          key === 'text' && typeof part === 'string' && /^[[{]/.test(part) ? undefined : part,
        ) as ReturnType<typeof parseTree>;
        expect(treeText(rewritten)).toBe(text);
        expect(rewritten.length).toBe(text.length);
      }),
      { numRuns: 500 },
    );
  });

  it('sets and removes members like an object, and keeps the text of the others', () => {
    fc.assert(
      fc.property(object, names, value, (text, nameText, added) => {
        const tree = parseTree(text);
        if (tree.kind !== 'object') throw new Error('no object');
        const name = JSON.parse(nameText) as string;
        const set = withMember(tree, name, parseTree(added));
        expect(JSON.parse(treeText(set))).toEqual({ ...JSON.parse(text), [name]: JSON.parse(added) });
        expect(treeText(set)).toHaveLength(set.length);
        const { [name]: _gone, ...rest } = JSON.parse(text) as Record<string, unknown>;
        const removed = withoutMember(tree, name);
        expect(JSON.parse(treeText(removed))).toEqual(rest);
        expect(treeText(removed)).toHaveLength(removed.length);
        for (const member of tree.members) {
          if (member.name === name) continue;
          const written = `${member.nameText}${member.colon}${treeText(member.value)}`;
          for (const changed of [set, removed]) expect(treeText(changed)).toContain(written);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('inserts and removes items like an array', () => {
    fc.assert(
      fc.property(array, fc.nat(5), value, (text, where, added) => {
        const tree = parseTree(text);
        if (tree.kind !== 'array') throw new Error('no array');
        const items = JSON.parse(text) as unknown[];
        const index = where % (items.length + 1);
        const inserted = withItem(tree, index, parseTree(added));
        expect(JSON.parse(treeText(inserted))).toEqual(items.toSpliced(index, 0, JSON.parse(added)));
        expect(treeText(inserted)).toHaveLength(inserted.length);
        if (index === items.length) return;
        expect(JSON.parse(treeText(withoutItem(tree, index)))).toEqual(items.toSpliced(index, 1));
      }),
      { numRuns: 500 },
    );
  });

  it('does not copy much white space to a new neighbour', () => {
    const tree = parseTree(`{${' '.repeat(1_000)}"a":1}`);
    if (tree.kind !== 'object') throw new Error('no object');
    expect(treeText(withMember(tree, 'b', parseTree('2')))).toBe(`{${' '.repeat(1_000)}"a":1,"b":2}`);
  });
});

describe('equality', () => {
  it.each([
    ['1', '1.0', true],
    ['1', '10e-1', true],
    ['100', '1E+2', true],
    ['0', '-0.0e9', true],
    ['-1', '1', false],
    ['0.1', '0.10000000000000001', false],
    ['12345678901234567890', '12345678901234567891', false],
    ['1e400', '1e401', false],
    ['1e99999999999999999999', '10e99999999999999999998', true],
    ['"a"', '"\\u0061"', true],
    ['"1"', '1', false],
    ['null', 'false', false],
    ['true', '1', false],
    ['"\\ud800"', '"\\ud801"', false],
    ['{"a":1,"b":[2]}', '{ "b":[2.0], "\\u0061":1 }', true],
    ['{"a":1}', '{"a":1,"b":1}', false],
    ['{"a":1}', '{"b":1}', false],
    ['[1,2]', '[2,1]', false],
    ['[1]', '[1,1]', false],
    ['{}', '[]', false],
  ])('equality of %s and %s is %s', (a, b, expected) => {
    expect(equalTrees(parseTree(a), parseTree(b))).toBe(expected);
    expect(equalTrees(parseTree(b), parseTree(a))).toBe(expected);
  });

  it('equality of numbers compares their exact decimal values', () => {
    /** Digits times ten to a small exponent, as a whole number: exact. */
    const exact = (digits: string, exponent: number) => BigInt(digits) * 10n ** BigInt(exponent + 30);
    const number = fc
      .tuple(fc.boolean(), fc.bigInt({ min: 0n, max: 999_999n }), fc.nat(6), fc.integer({ min: -9, max: 9 }))
      .map(([negative, whole, places, exponent]) => {
        const digits = whole.toString().padStart(places + 1, '0');
        const mantissa = places === 0 ? digits : `${digits.slice(0, -places)}.${digits.slice(-places)}`;
        const text = `${negative ? '-' : ''}${mantissa}e${exponent}`;
        return { text, exact: (negative ? -1n : 1n) * exact(whole.toString(), exponent - places) };
      });
    fc.assert(
      fc.property(number, number, fc.nat(4), (a, b, zeros) => {
        expect(equalNumbers(a.text, b.text)).toBe(a.exact === b.exact);
        const [mantissa = '', exponent = ''] = a.text.split('e');
        const longer = mantissa.includes('.') ? `${mantissa}${'0'.repeat(zeros)}` : mantissa;
        expect(equalNumbers(a.text, `${longer}E${exponent}`)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});
