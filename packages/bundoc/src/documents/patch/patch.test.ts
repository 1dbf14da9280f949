import { type JsonObject, parseTree, TREE_VALUES_MAX, treeText } from '@bundoc/shared/json/tree';
import { describe, expect, it } from 'vitest';
import { patched } from '../../testing/patched.ts';
import { PATCH_WORK_MAX } from './json-patch.ts';
import { patchContent } from './patch-content.ts';
import { PATCH_OPERATIONS_MAX, type PatchKind, readPatch } from './read-patch.ts';

const read = (kind: PatchKind, patch: string, bytesMax = 10_000) =>
  readPatch(kind, Buffer.from(patch), bytesMax);
const apply = (kind: PatchKind, document: string, patch: string, bytesMax = 10_000) =>
  treeText(patched(parseTree(document) as JsonObject, read(kind, patch, bytesMax), bytesMax));
const refused = (code: string) => expect.objectContaining({ code });

// RFC 7396, appendix A: the examples with an object as document and result.
describe('the examples of RFC 7396', () => {
  it.each([
    ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
    ['{"a":"b"}', '{"a":null}', '{}'],
    ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
    ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
    ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
    ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
    ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
    ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
  ])('change %s with %s to %s', (document, patch, expected) => {
    expect(apply('merge', document, patch)).toBe(expected);
  });

  it.each(['["c"]', 'null', '"bar"'])('refuse %s, which would leave no document', (patch) => {
    expect(() => read('merge', patch)).toThrow(refused('invalid_patch'));
  });
});

// RFC 6902, appendix A.
describe('the examples of RFC 6902', () => {
  it.each([
    ['A.1', '{"foo":"bar"}', '[{"op":"add","path":"/baz","value":"qux"}]', '{"foo":"bar","baz":"qux"}'],
    [
      'A.2',
      '{"foo":["bar","baz"]}',
      '[{"op":"add","path":"/foo/1","value":"qux"}]',
      '{"foo":["bar","qux","baz"]}',
    ],
    ['A.3', '{"baz":"qux","foo":"bar"}', '[{"op":"remove","path":"/baz"}]', '{"foo":"bar"}'],
    ['A.4', '{"foo":["bar","qux","baz"]}', '[{"op":"remove","path":"/foo/1"}]', '{"foo":["bar","baz"]}'],
    [
      'A.5',
      '{"baz":"qux","foo":"bar"}',
      '[{"op":"replace","path":"/baz","value":"boo"}]',
      '{"baz":"boo","foo":"bar"}',
    ],
    [
      'A.6',
      '{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}',
      '[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]',
      '{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}',
    ],
    [
      'A.7',
      '{"foo":["all","grass","cows","eat"]}',
      '[{"op":"move","from":"/foo/1","path":"/foo/3"}]',
      '{"foo":["all","cows","eat","grass"]}',
    ],
    [
      'A.8',
      '{"baz":"qux","foo":["a",2,"c"]}',
      '[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]',
      '{"baz":"qux","foo":["a",2,"c"]}',
    ],
    [
      'A.10',
      '{"foo":"bar"}',
      '[{"op":"add","path":"/child","value":{"grandchild":{}}}]',
      '{"foo":"bar","child":{"grandchild":{}}}',
    ],
    [
      'A.11',
      '{"foo":"bar"}',
      '[{"op":"add","path":"/baz","value":"qux","xyz":123}]',
      '{"foo":"bar","baz":"qux"}',
    ],
    ['A.14', '{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":10}]', '{"/":9,"~1":10}'],
    [
      'A.16',
      '{"foo":["bar"]}',
      '[{"op":"add","path":"/foo/-","value":["abc","def"]}]',
      '{"foo":["bar",["abc","def"]]}',
    ],
  ])('hold for %s', (_number, document, patch, expected) => {
    expect(apply('json', document, patch)).toBe(expected);
  });

  it.each([
    ['A.9', '{"baz":"qux"}', '[{"op":"test","path":"/baz","value":"bar"}]', 'patch_test_failed'],
    ['A.12', '{"foo":"bar"}', '[{"op":"add","path":"/baz/bat","value":"qux"}]', 'patch_inapplicable'],
    ['A.13', '{}', '[{"op":"add","path":"/baz","value":"qux","op":"remove"}]', 'invalid_json'],
    ['A.15', '{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":"10"}]', 'patch_test_failed'],
  ])('are refused in %s', (_number, document, patch, code) => {
    expect(() => apply('json', document, patch)).toThrow(refused(code));
  });
});

describe('a patch', () => {
  const document = '{ "n": 12345678901234567890,\n  "m":1.10, "\\u006f" : {"x" :[ 1e400 , "\\u0061" ] } }';

  it('keeps every character that it does not change', () => {
    expect(apply('merge', document, '{"m":2.00}')).toBe(document.replace('1.10', '2.00'));
    expect(apply('merge', document, '{"o":{"y":-0}}')).toBe(
      '{ "n": 12345678901234567890,\n  "m":1.10, "\\u006f" : {"x" :[ 1e400 , "\\u0061" ],"y" :-0 } }',
    );
    expect(apply('json', document, '[{"op":"replace","path":"/o/x/0","value":5.0}]')).toBe(
      document.replace('1e400', '5.0'),
    );
    expect(apply('json', document, '[{"op":"remove","path":"/m"}]')).toBe(
      document.replace('\n  "m":1.10,', ''),
    );
    expect(
      apply('json', document, '[{"op":"copy","from":"/n","path":"/c"},{"op":"remove","path":"/o"}]'),
    ).toContain('12345678901234567890');
  });

  it.each([
    ['[{"op":"replace","path":"/a/1/b","value":9}]', '{"a":[{"b":0},{"b":9},{"b":2}]}'],
    ['[{"op":"add","path":"/a/2/c","value":9}]', '{"a":[{"b":0},{"b":1},{"b":2,"c":9}]}'],
    ['[{"op":"remove","path":"/a/1/b"}]', '{"a":[{"b":0},{},{"b":2}]}'],
    ['[{"op":"copy","from":"/a/2/b","path":"/a/1/b"}]', '{"a":[{"b":0},{"b":2},{"b":2}]}'],
    ['[{"op":"move","from":"/a/1","path":"/a/2"}]', '{"a":[{"b":0},{"b":2},{"b":1}]}'],
    ['[{"op":"test","path":"/a/2/b","value":2}]', '{"a":[{"b":0},{"b":1},{"b":2}]}'],
  ])('passes through an item with an index above 0: %s', (patch, expected) => {
    expect(apply('json', '{"a":[{"b":0},{"b":1},{"b":2}]}', patch)).toBe(expected);
  });

  it.each(['/a/3', '/a/3/b', '/a/01/b', '/a/-/b', '/a/10000000000/b'])(
    'is refused where %s does not lead to an item',
    (path) => {
      for (const patch of [
        `[{"op":"replace","path":"${path}","value":1}]`,
        `[{"op":"remove","path":"${path}"}]`,
      ])
        expect(() => apply('json', '{"a":[{"b":0},{"b":1},{"b":2}]}', patch)).toThrow(
          refused('patch_inapplicable'),
        );
    },
  );

  it('changes no character when it names nothing', () => {
    expect(apply('merge', document, '{}')).toBe(document);
    expect(apply('json', document, '[]')).toBe(document);
    expect(apply('json', document, '[{"op":"move","from":"/n","path":"/n"}]')).toBe(document);
  });

  it('formats new members like the existing ones', () => {
    expect(apply('merge', '{\n  "a": 1\n}', '{"b":2,"c":3}')).toBe('{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}');
  });

  it('compares numbers by their exact value', () => {
    const test = (value: string) => apply('json', '{"n":12345678901234567890,"m":1.0}', value);
    expect(test('[{"op":"test","path":"/m","value":1}]')).toBeDefined();
    expect(test('[{"op":"test","path":"/n","value":1234567890123456789e1}]')).toBeDefined();
    expect(() => test('[{"op":"test","path":"/n","value":12345678901234567891}]')).toThrow(
      refused('patch_test_failed'),
    );
  });

  it('names the failed operation', () => {
    const patch = '[{"op":"test","path":"/a","value":1},{"op":"remove","path":"/b"}]';
    expect(() => apply('json', '{"a":1}', patch)).toThrow(
      expect.objectContaining({ errors: [{ path: 'body.1', message: 'there is no value at the path' }] }),
    );
  });

  it.each([
    ['a document that would be removed', '[{"op":"remove","path":""}]'],
    ['a document that would be no object', '[{"op":"replace","path":"","value":[]}]'],
    ['a value moved into itself', '[{"op":"move","from":"/a","path":"/a/b"}]'],
    ['an unknown operation', '[{"op":"spread","path":"/a"}]'],
    ['an operation without a path', '[{"op":"remove"}]'],
    ['an add without a value', '[{"op":"add","path":"/a"}]'],
    ['a pointer without a slash', '[{"op":"remove","path":"a"}]'],
    ['a pointer with a bad escape', '[{"op":"remove","path":"/~2"}]'],
    ['a pointer deeper than documents', `[{"op":"remove","path":"${'/a'.repeat(101)}"}]`],
    ['a pointer to __proto__', '[{"op":"add","path":"/__proto__","value":1}]'],
    ['_id', '[{"op":"replace","path":"/_id","value":"x"}]'],
    ['a test of _rev', '[{"op":"test","path":"/_rev","value":"x"}]'],
    ['a copy of _created', '[{"op":"copy","from":"/_created","path":"/a"}]'],
    ['a new reserved name', '[{"op":"add","path":"/_x","value":1}]'],
    ['an object', '{"op":"remove","path":"/a"}'],
    [
      'too many operations',
      JSON.stringify(Array(PATCH_OPERATIONS_MAX + 1).fill({ op: 'remove', path: '/a' })),
    ],
  ])('is refused as invalid with %s', (_what, patch) => {
    expect(() => read('json', patch)).toThrow(refused('invalid_patch'));
  });

  it.each(['{"_id":"x"}', '{"_rev":null}', '{"\\u005fcreated":1}', '{"_other":1}'])(
    'is refused as invalid when it merges %s',
    (patch) => {
      expect(() => read('merge', patch)).toThrow(refused('invalid_patch'));
    },
  );

  it('cannot copy a reserved name or a scalar to the top level', () => {
    for (const inner of ['{"_id":1}', '1'])
      expect(() => apply('json', `{"a":${inner}}`, '[{"op":"copy","from":"/a","path":""}]')).toThrow(
        refused('patch_inapplicable'),
      );
  });

  it('cannot double a document without end, nor nest it too deep to be read', () => {
    const double = JSON.stringify(
      Array.from({ length: 400 }, (_, n) => ({ op: 'copy', from: '', path: `/c${n}` })),
    );
    expect(() => apply('json', '{"a":1}', double)).toThrow(refused('payload_too_large'));
    const intoItself = (levels: number) => {
      const innermost = `/a${'/0'.repeat(levels - 1)}/-`;
      return apply(
        'json',
        `{"a":${'['.repeat(levels)}${']'.repeat(levels)}}`,
        `[{"op":"copy","from":"/a","path":"${innermost}"}]`,
      );
    };
    expect(intoItself(49)).toContain('['.repeat(98));
    expect(() => intoItself(50)).toThrow(refused('patch_inapplicable'));
  });

  it('cannot exceed the maximum document size, counted in UTF-8', () => {
    const own = { bytes: Buffer.from('"a":"x"'), hasMembers: true };
    const patch = read('merge', '{"a":"€€€"}', 15);
    expect(() => patchContent(own, patch, 16)).toThrow(refused('payload_too_large'));
    expect(patchContent(own, patch, 17).bytes.toString()).toBe('"a":"€€€"');
  });
});

describe('the cost limit of a patch', () => {
  const documentOf = (items: number) => `{"a":[${'0,'.repeat(items - 1)}0]}`;
  const replacements = (count: number) =>
    JSON.stringify(Array.from({ length: count }, () => ({ op: 'replace', path: '/a/0', value: 1 })));

  it('refuses many operations on a large array, and allows as many on a small one', () => {
    const items = PATCH_WORK_MAX / 10;
    const large = documentOf(items);
    expect(apply('json', large, replacements(5), large.length)).toBe(large.replace('0', '1'));
    expect(() => apply('json', large, replacements(20), large.length)).toThrow(refused('payload_too_large'));
    expect(apply('json', '{"a":[0]}', replacements(PATCH_OPERATIONS_MAX))).toBe('{"a":[1]}');
  });

  it('includes the path to the source of a copy', () => {
    const large = documentOf(PATCH_WORK_MAX / 10).replace('{', '{"b":0,');
    const copies = Array.from({ length: 20 }, () => ({ op: 'copy', from: '/a/0', path: '/b' }));
    expect(() => apply('json', large, JSON.stringify(copies), large.length)).toThrow(
      refused('payload_too_large'),
    );
  });

  it('refuses a document with too many values to hold at once', () => {
    const own = { bytes: Buffer.from(documentOf(TREE_VALUES_MAX).slice(1, -1)), hasMembers: true };
    expect(() => patchContent(own, read('merge', '{"b":1}'), own.bytes.length * 2)).toThrow(
      refused('payload_too_large'),
    );
  });
});
