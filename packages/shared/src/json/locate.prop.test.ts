import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { locateMembers, locateObjects, scanJson, valueStartOf } from './scan.ts';
import { parseTree, treeText } from './tree.ts';

const space = fc.constantFrom('', '', ' ', '\n\t', '\r\n ');
const scalar = fc.oneof(
  fc.constantFrom('null', 'true', '-0', '1.10e+4', '""', '"\\\\"', '"\\"{,]"', '"é😀"', '"\\u007b"'),
  fc.string({ unit: 'grapheme' }).map((text) => JSON.stringify(text)),
);
const { value } = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    scalar,
    fc
      .tuple(space, fc.array(fc.tuple(space, tie('value'), space), { maxLength: 4 }))
      .map(([gap, items]) =>
        items.length === 0 ? `[${gap}]` : `[${items.map((parts) => parts.join('')).join(',')}]`,
      ),
    fc
      .tuple(
        space,
        fc.uniqueArray(
          fc.tuple(
            space,
            fc.constantFrom('"a"', '"\\u0062"', '"\\"}"', '"é"'),
            space,
            space,
            tie('value'),
            space,
          ),
          { maxLength: 4, selector: ([, name]) => name },
        ),
      )
      .map(([gap, list]) =>
        list.length === 0
          ? `{${gap}}`
          : `{${list.map(([a, name, b, c, one, d]) => `${a}${name}${b}:${c}${one}${d}`).join(',')}}`,
      ),
  ),
}));

const before = fc.constantFrom('', '[1,', '{"x":"{", "y":');

describe('a locator of values in a text', () => {
  it('finds the members of an object anywhere in a text, as a scan of the object alone does', () => {
    fc.assert(
      fc.property(
        before,
        value.filter((text) => text.startsWith('{')),
        (prefix, text) => {
          const start = Buffer.byteLength(prefix);
          const bytes = Buffer.from(`${prefix}${text} ]}`);
          const located = locateMembers(bytes, start);
          const scan = scanJson(Buffer.from(text));
          expect(located.bodyStart - start).toBe(scan.bodyStart);
          expect(located.bodyEnd - start).toBe(scan.bodyEnd);
          expect(
            located.members.map(({ name, start: at, nameStart, end }) => [
              name,
              at - start,
              nameStart - start,
              end - start,
            ]),
          ).toEqual(scan.members.map(({ name, start: at, nameStart, end }) => [name, at, nameStart, end]));
          const tree = parseTree(text);
          expect(
            located.members.map(({ valueStart, valueEnd }) => bytes.toString('utf8', valueStart, valueEnd)),
          ).toEqual(tree.kind === 'object' ? tree.members.map((member) => treeText(member.value)) : []);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('finds the objects of an array, with the members of their values', () => {
    const object = value.filter((text) => text.startsWith('{'));
    fc.assert(
      fc.property(before, fc.array(fc.tuple(space, object, space), { maxLength: 4 }), (prefix, list) => {
        const start = Buffer.byteLength(prefix);
        const bytes = Buffer.from(`${prefix}[${list.map((parts) => parts.join('')).join(',')}]`);
        const found = locateObjects(bytes, start, 1);
        expect(
          found.map(({ bodyStart, bodyEnd }) => bytes.toString('utf8', bodyStart - 1, bodyEnd + 1)),
        ).toEqual(list.map(([, text]) => text));
        for (const { members } of found)
          for (const { inner, valueStart } of members)
            expect(inner).toEqual(bytes[valueStart] === 0x7b ? locateMembers(bytes, valueStart) : undefined);
      }),
      { numRuns: 500 },
    );
  });

  it('finds where the value of a scanned member begins', () => {
    fc.assert(
      fc.property(
        value.filter((text) => text.startsWith('{')),
        (text) => {
          const bytes = Buffer.from(text);
          expect(scanJson(bytes).members.map((member) => valueStartOf(bytes, member))).toEqual(
            locateMembers(bytes, 0).members.map(({ valueStart }) => valueStart),
          );
        },
      ),
      { numRuns: 200 },
    );
  });
});
