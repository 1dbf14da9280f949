import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { composeStoredText, readDocumentBody, readStoredMetadata } from './stored-text.ts';

const metadata = {
  _id: 'id "1"\\é',
  _collection: 'notes',
  _rev: 'a'.repeat(24),
  _created: '2026-01-01T00:00:00.000Z',
  _updated: '2026-01-02T00:00:00.000Z',
};

const space = fc.stringMatching(/^[ \t\n\r]{0,3}$/);
const name = fc
  .oneof(fc.string({ unit: 'grapheme', maxLength: 6 }), fc.string({ unit: 'binary', maxLength: 4 }))
  .filter((text) => !text.startsWith('_') && text !== '__proto__');
const value = fc.oneof(
  fc.json({ maxDepth: 3 }).filter((json) => !json.includes('__proto__')),
  fc.constantFrom(
    '12345678901234567890',
    '1.10',
    '1e400',
    '-0',
    '"}"',
    '"\\"{,"',
    '[ 1 , 2 ]',
    '{ "_id" : 3 }',
  ),
);

/** A name in JSON, with some of its characters as escapes. */
const spelled = (text: string, escaped: boolean) =>
  escaped
    ? `"${[...Array(text.length).keys()].map((at) => `\\u${text.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')}"`
    : JSON.stringify(text);

const member = fc.record({ name, value, escaped: fc.boolean(), gaps: fc.tuple(space, space, space, space) });
type Member = typeof member extends fc.Arbitrary<infer M> ? M : never;
const members = fc.uniqueArray(member, { selector: (one) => one.name, maxLength: 6 });
const writeMember = ({ name: text, value: json, escaped, gaps }: Member) =>
  `${gaps[0]}${spelled(text, escaped)}${gaps[1]}:${gaps[2]}${json}${gaps[3]}`;
const object = (list: readonly Member[], empty: string) =>
  `{${list.length === 0 ? empty : list.map(writeMember).join(',')}}`;

describe('the stored text', () => {
  it("contains the client's bytes between the braces verbatim", () => {
    fc.assert(
      fc.property(members, space, (list, empty) => {
        const sent = object(list, empty);
        const text = composeStoredText(metadata, readDocumentBody(Buffer.from(sent)).content).toString();
        const head = JSON.stringify(metadata).slice(0, -1);
        expect(text).toBe(`${head}${list.length === 0 ? '' : ','}${sent.slice(1)}`);
        expect(JSON.parse(text)).toEqual({ ...metadata, ...JSON.parse(sent) });
      }),
    );
  });

  it("keeps the user's bytes when a read text is written back", () => {
    fc.assert(
      fc.property(members, space, (list, empty) => {
        const content = readDocumentBody(Buffer.from(object(list, empty))).content;
        const read = composeStoredText(metadata, content);
        const again = readDocumentBody(read);
        expect(again.content.bytes).toEqual(content.bytes);
        expect(again.content.hasMembers).toBe(content.hasMembers);
        expect([again.id, again.collection, again.rev]).toEqual([metadata._id, 'notes', metadata._rev]);
      }),
    );
  });

  it('never contains a metadata member from the client, wherever it was and however it was spelled', () => {
    const meta = fc.constantFrom('_id', '_collection', '_rev', '_created', '_updated');
    const mixed = fc.tuple(members, fc.uniqueArray(meta, { minLength: 1 }), fc.boolean(), space, fc.nat());
    fc.assert(
      fc.property(mixed, ([list, names, escaped, gap, seed]) => {
        const parts = list.map(writeMember);
        for (const [n, text] of names.entries())
          parts.splice(
            (seed + n * 7) % (parts.length + 1),
            0,
            `${gap}${spelled(text, escaped)}${gap}:"forged"${gap}`,
          );
        const body = readDocumentBody(Buffer.from(`{${parts.join(',')}}`));
        const text = composeStoredText(metadata, body.content).toString();
        expect(text).not.toContain('forged');
        const own = Object.fromEntries(list.map((one) => [one.name, JSON.parse(one.value)]));
        expect(JSON.parse(text)).toEqual({ ...metadata, ...own });
        if (names.includes('_rev')) expect(body.rev).toBe('forged');
      }),
    );
  });

  it('yields its metadata for its own reference and for no other', () => {
    const { content } = readDocumentBody(Buffer.from('{"a":1}'));
    const text = composeStoredText(metadata, content);
    expect(readStoredMetadata(text, { collection: 'notes', id: metadata._id })).toEqual(metadata);
    expect(readStoredMetadata(text, { collection: 'note', id: metadata._id })).toBeUndefined();
    expect(readStoredMetadata(text, { collection: 'notes', id: 'id' })).toBeUndefined();
    expect(readStoredMetadata(Buffer.alloc(0), { collection: 'notes', id: 'id' })).toBeUndefined();
  });
});

describe('a request body', () => {
  it.each([
    ['a reserved name', '{"_secret":1}'],
    ['a reserved name in escapes', '{"\\u005fsecret":1}'],
    ['a bare underscore', '{"_":1}'],
    ['an _id that is no string', '{"_id":1}'],
    ['a _rev that is no string', '{"_rev":null}'],
    ['a _collection that is no string', '{"\\u005fcollection":["notes"]}'],
  ])('is refused with %s as invalid_document', (_name, text) => {
    expect(() => readDocumentBody(Buffer.from(text))).toThrow(
      expect.objectContaining({ code: 'invalid_document' }),
    );
  });

  it.each([
    ['a name twice', '{"a":1,"a":2}'],
    ['a name twice, once in escapes', '{"_id":"x","\\u005fid":"x"}'],
    ['a name twice, deep inside', '{"a":[{"b":1,"\\u0062":2}]}'],
    ['__proto__ deep inside', '{"a":{"\\u005f_proto__":{}}}'],
    ['an array', '[]'],
    ['a string', '"a"'],
    ['nothing', ''],
  ])('is refused with %s as invalid_json', (_name, text) => {
    expect(() => readDocumentBody(Buffer.from(text))).toThrow(
      expect.objectContaining({ code: 'invalid_json' }),
    );
  });

  it('may have reserved names below the top level', () => {
    expect(
      readDocumentBody(Buffer.from('{"a":{"_id":1,"constructor":{"prototype":1}}}')).content.hasMembers,
    ).toBe(true);
  });
});
