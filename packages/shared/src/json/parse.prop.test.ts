import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hasCode } from '../contract/app-error.ts';
import { type ParsedJsonObject, parseJsonObject } from './parse.ts';
import { JSON_DEPTH_MAX, scanJson } from './scan.ts';

/** One spelling of a character in a JSON string. */
function spellings(unit: string): fc.Arbitrary<string> {
  const escaped = Array.from(
    { length: unit.length },
    (_, index) => `\\u${unit.charCodeAt(index).toString(16).padStart(4, '0')}`,
  ).join('');
  const short: Record<string, string> = { '"': '\\"', '\\': '\\\\', '/': '\\/', '\n': '\\n', '\b': '\\b' };
  const plain = JSON.stringify(unit).slice(1, -1);
  return fc.constantFrom(
    plain,
    escaped,
    escaped.toUpperCase().replaceAll('\\U', '\\u'),
    short[unit] ?? plain,
  );
}

/** Few units on purpose, so that names often collide in different spellings. */
const unit = fc
  .constantFrom(
    'a',
    'b',
    '_',
    '"',
    '\\',
    '/',
    '\n',
    '\b',
    '\0',
    'é',
    '€',
    '😀',
    '\ud800',
    '\udc00',
    '{',
    ']',
    ',',
    ':',
  )
  .chain(spellings);
const name = fc.oneof(
  { weight: 8, arbitrary: fc.array(unit, { maxLength: 2 }).map((units) => units.join('')) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(...[...'__proto__'].map((letter) => spellings(letter)))
      .map((units) => units.join('')),
  },
);
const space = fc.string({ unit: fc.constantFrom(' ', '\t', '\n', '\r'), maxLength: 2 });
const scalar = fc.oneof(
  fc.constantFrom('null', 'true', 'false', '0', '-0', '1.10', '1e400', '12345678901234567890', '-1.5E-3'),
  name.map((text) => `"${text}"`),
);

/** Valid JSON texts, as awkward as the grammar allows. */
const { text: jsonText, object: jsonObject } = fc.letrec<{ text: string; array: string; object: string }>(
  (tie) => ({
    text: fc
      .tuple(space, fc.oneof({ maxDepth: 5, depthSize: 'small' }, scalar, tie('array'), tie('object')), space)
      .map((parts) => parts.join('')),
    array: fc
      .tuple(space, fc.array(tie('text'), { maxLength: 4 }))
      .map(([blank, items]) => `[${items.length === 0 ? blank : items.join(',')}]`),
    object: fc
      .tuple(space, fc.array(fc.tuple(space, name, space, tie('text')), { maxLength: 4 }))
      .map(
        ([blank, members]) =>
          `{${members.length === 0 ? blank : members.map(([before, key, after, value]) => `${before}"${key}"${after}:${value}`).join(',')}}`,
      ),
  }),
);

/**
 * The value, with members as a map, since `JSON.parse` cannot be trusted with escaped names (see `read.ts`).
 */
type Tree = { readonly scalar: unknown } | readonly Tree[] | ReadonlyMap<string, Tree>;

/**
 * The expected result of the strict parser, from a slow and obvious one; undefined when the parser must
 * refuse.
 */
function oracle(text: string): ReadonlyMap<string, Tree> | undefined {
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+/g) ?? [];
  let at = 0;
  let isRefused = false;
  const value = (depth: number): Tree => {
    const token = tokens[at++] ?? '';
    if (token !== '{' && token !== '[') return { scalar: JSON.parse(token) };
    if (depth > JSON_DEPTH_MAX) isRefused = true;
    const items: Tree[] = [];
    const members = new Map<string, Tree>();
    while (tokens[at] !== '}' && tokens[at] !== ']') {
      if (tokens[at] === ',') at++;
      if (token === '[') items.push(value(depth + 1));
      else {
        const key = JSON.parse(tokens[at] ?? '') as string;
        if (members.has(key) || key === '__proto__') isRefused = true;
        at += 2; // The name and the colon.
        members.set(key, value(depth + 1));
      }
    }
    at++;
    return token === '[' ? items : members;
  };
  const root = value(1);
  return isRefused || !(root instanceof Map) ? undefined : root;
}

function treeOf(value: unknown): Tree {
  if (Array.isArray(value)) return value.map(treeOf);
  if (typeof value !== 'object' || value === null) return { scalar: value };
  return new Map(Object.entries(value).map(([key, member]) => [key, treeOf(member)]));
}

function read(bytes: Buffer): ParsedJsonObject | undefined {
  try {
    return parseJsonObject(bytes);
  } catch (error) {
    if (hasCode(error, 'invalid_json')) return undefined;
    throw error;
  }
}

function expectAgreement(sent: string): void {
  const bytes = Buffer.from(sent);
  const text = bytes.toString(); // This replaces a raw lone surrogate in `sent`.
  const parsed = read(bytes);
  const expected = oracle(text);
  expect(parsed !== undefined).toBe(expected !== undefined);
  if (parsed === undefined || expected === undefined) return;
  expect(treeOf(parsed.value)).toEqual(expected);
  const { scan } = parsed;
  expect(bytes[(scan.bodyStart ?? 0) - 1]).toBe(0x7b);
  expect(bytes[scan.bodyEnd]).toBe(0x7d);
  expect(scan.members.map((member) => member.name)).toEqual([...expected.keys()]);
  // Between the braces are only the members and the commas between them.
  expect(scan.members.map(({ start, end }) => bytes.toString('utf8', start, end)).join(',')).toBe(
    scan.members.length === 0 ? '' : bytes.toString('utf8', scan.bodyStart, scan.bodyEnd),
  );
  for (const member of scan.members) {
    const slice = oracle(`{${bytes.toString('utf8', member.start, member.end)}}`);
    expect(slice).toEqual(new Map([[member.name, expected.get(member.name)]]));
    expect(bytes.toString('utf8', member.start, member.nameStart).trim()).toBe('');
    expect(bytes[member.nameStart]).toBe(0x22);
  }
}

describe('parseJsonObject', () => {
  it('accepts the output of JSON.stringify for any object, and reads it as JSON.parse does', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()),
        fc.nat(2),
        (value, indent) => {
          expectAgreement(JSON.stringify(value, undefined, indent));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('accepts awkward text exactly when it is an object without duplicates and __proto__', () => {
    fc.assert(
      fc.property(
        fc.oneof({ weight: 4, arbitrary: jsonObject }, { weight: 1, arbitrary: jsonText }),
        (text) => {
          expectAgreement(text);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it('is tested with awkward texts that are often accepted and often refused', () => {
    const verdicts = fc.sample(jsonObject, 500).map(oracle);
    expect(verdicts.filter((verdict) => verdict !== undefined).length).toBeGreaterThan(50);
    expect(verdicts.filter((verdict) => verdict === undefined).length).toBeGreaterThan(50);
  });

  it('agrees with JSON.parse on damaged text', () => {
    const damage = fc.constantFrom('', '"', '\\', '{', '}', '[', ']', ',', ':', '0', '\\u', '\u0001', 'é');
    fc.assert(
      fc.property(jsonObject, fc.nat(), fc.nat(3), damage, (text, where, length, instead) => {
        const at = where % (text.length + 1);
        expectAgreement(text.slice(0, at) + instead + text.slice(at + length));
      }),
      { numRuns: 2_000 },
    );
  });

  it('accepts a nesting of one hundred and refuses one more', () => {
    const opening = fc.constantFrom(['[', ']'], ['{"a":', '}'], ['[0,', ']']);
    fc.assert(
      fc.property(fc.array(opening, { minLength: 95, maxLength: 105 }), (levels) => {
        const text = `{"a":${levels.map(([open]) => open).join('')}0${levels
          .map(([, close]) => close)
          .reverse()
          .join('')}}`;
        expect(read(Buffer.from(text)) !== undefined).toBe(levels.length + 1 <= JSON_DEPTH_MAX);
      }),
    );
  });

  it('reads or refuses arbitrary bytes, and throws no other error', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void read(Buffer.from(bytes))));
  });
});

describe('scanJson', () => {
  it('terminates on arbitrary bytes, throws nothing and returns no offset outside them', () => {
    const structural = fc.constantFrom(...Buffer.from('{}[]",:\\a0 _u').values());
    const bytes = fc.array(fc.oneof({ weight: 9, arbitrary: structural }, fc.integer({ min: 0, max: 255 })), {
      maxLength: 300,
    });
    fc.assert(
      fc.property(bytes, fc.integer({ min: 1, max: 100 }), (list, depthMax) => {
        const scan = scanJson(Buffer.from(list), depthMax);
        expect(scan.depth).toBeLessThanOrEqual(depthMax + 1);
        expect(scan.bodyEnd).toBeLessThanOrEqual(list.length);
        for (const { start, nameStart, end } of scan.members) {
          expect(start).toBeGreaterThanOrEqual(0);
          expect(end).toBeLessThanOrEqual(list.length);
          expect(nameStart).toBeLessThan(list.length);
        }
      }),
      { numRuns: 3_000 },
    );
  });
});
