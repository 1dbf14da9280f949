import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { composeStoredText, readDocumentBody } from '../crypto/stored-text.ts';
import { FIELDS_MAX, type Fields, fieldsParameterSchema, readFields } from './fields.ts';
import { projectText } from './project-text.ts';

const METADATA = {
  _id: 'a',
  _collection: 'notes',
  _rev: 'a'.repeat(24),
  _created: '2026-01-01T00:00:00.000Z',
  _updated: '2026-01-01T00:00:00.000Z',
};

function chosen(paths: readonly string[]): Fields {
  const fields = readFields(paths);
  if (typeof fields === 'string') throw new Error(fields);
  return fields;
}

const project = (document: object, paths: readonly string[]): Record<string, unknown> => {
  const { content } = readDocumentBody(Buffer.from(JSON.stringify(document)));
  const text = composeStoredText(METADATA, content);
  return JSON.parse(projectText({ metadata: METADATA, text }, chosen(paths).mask).toString());
};

const name = fc.constantFrom('a', 'b', 'c');
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constantFrom(null, 1, 'x'),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(name, tie('value'), { noNullPrototype: true }),
  ),
}));
const document = fc.dictionary(name, value, { noNullPrototype: true });
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('.'));

/** Evaluates one path after another on plain values; undefined for nothing. */
function naively(node: unknown, paths: readonly (readonly string[])[]): unknown {
  if (paths.some((one) => one.length === 0)) return node;
  if (Array.isArray(node))
    return node.map((item) => naively(item, paths)).filter((item) => item !== undefined);
  if (typeof node !== 'object' || node === null) return undefined;
  return Object.fromEntries(
    Object.entries(node).flatMap(([key, member]) => {
      const inner = paths.filter(([first]) => first === key).map((one) => one.slice(1));
      const left = inner.length === 0 ? undefined : naively(member, inner);
      return left === undefined ? [] : [[key, left]];
    }),
  );
}

describe('a selection of fields', () => {
  it('keeps the same members as a naive evaluation of its paths, after the metadata', () => {
    fc.assert(
      fc.property(document, fc.array(path, { minLength: 1, maxLength: 4 }), (target, paths) => {
        expect(project(target, paths)).toEqual({
          ...METADATA,
          ...(naively(
            target,
            paths.map((one) => one.split('.')),
          ) as object),
        });
      }),
      { numRuns: 1_000 },
    );
  });

  it('has one canonical spelling for any order and repetition of its paths', () => {
    fc.assert(
      fc.property(fc.array(path, { minLength: 1, maxLength: 5 }), (paths) => {
        const { canonical } = chosen(paths);
        expect(chosen([...paths].reverse().concat(paths)).canonical).toEqual(canonical);
        expect(chosen(canonical).canonical).toEqual(canonical);
      }),
    );
  });

  it.each([
    '',
    ',',
    'a,',
    'a..b',
    '.a',
    `${'x'.repeat(513)}`,
    Array(FIELDS_MAX + 1)
      .fill('a')
      .join(','),
    `${'a.'.repeat(200)}a`,
  ])('is invalid as %j', (text) => {
    expect(fieldsParameterSchema.safeParse(text).success).toBe(false);
  });
});
