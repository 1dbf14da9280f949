import { type JsonObject, parseTree, treeText } from '@bundoc/shared/json/tree';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { patched } from '../../testing/patched.ts';
import type { Job } from '../../work/job.ts';
import type { Work } from '../../work/work.ts';
import { PATCH_WORK_MAX } from './json-patch.ts';
import { patchContent, patchContentInTurns } from './patch-content.ts';
import { readPatch } from './read-patch.ts';

const BYTES_MAX = 10_000;
const read = (update: string) => readPatch('update', Buffer.from(update), BYTES_MAX);
const apply = (document: string, update: string, bytesMax = BYTES_MAX) =>
  treeText(patched(parseTree(document) as JsonObject, read(update), bytesMax));
const refused = (code: string, path?: string, message?: unknown) =>
  expect.objectContaining({
    code,
    ...(path === undefined ? {} : { errors: [{ path, message: message ?? expect.any(String) }] }),
  });

afterEach(() => vi.useRealTimers());

describe('$set', () => {
  it.each([
    ['{"a":1}', '{"$set":{"a":2.00}}', '{"a":2.00}'],
    ['{}', '{"$set":{"b":1,"a":{"$x":null}}}', '{"b":1,"a":{"$x":null}}'],
    ['{"a":{"b":1}}', '{"$set":{"a.c.d":2}}', '{"a":{"b":1,"c":{"d":2}}}'],
    ['{"a":[1,{"b":2}]}', '{"$set":{"a.1.b":3,"a.0":0}}', '{"a":[0,{"b":3}]}'],
    ['{"a":[1]}', '{"$set":{"a.1":2,"a.2.0":3}}', '{"a":[1,2,{"0":3}]}'],
    ['{"a":{"0":1}}', '{"$set":{"a.0":2}}', '{"a":{"0":2}}'],
    ['{"a":1}', '{"$set":{}}', '{"a":1}'],
    ['{}', '{"$set":{"constructor.prototype":1}}', '{"constructor":{"prototype":1}}'],
  ])('changes %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });

  it('does not fit where a value on the path has no members', () => {
    for (const value of ['1', 'null', '"x"'])
      expect(() => apply(`{"a":${value}}`, '{"$set":{"a.b":1}}')).toThrow(
        refused(
          'patch_inapplicable',
          'body.$set.a.b',
          'the path leads into a value that is neither an object nor an array',
        ),
      );
  });

  it.each(['a.2', 'a.x', 'a.-1', 'a.01', 'a.1000000', 'a.2.b'])('adds no item at %s of one', (path) => {
    expect(() => apply('{"a":[1]}', `{"$set":{"${path}":1}}`)).toThrow(
      refused(
        'patch_inapplicable',
        `body.$set.${path}`,
        'the path leads into an array: it must name an item by its index, at most 1',
      ),
    );
  });
});

describe('$unset', () => {
  it.each([
    ['{"a":1,"b":2}', '{"$unset":{"a":""}}', '{"b":2}'],
    ['{"a":{"b":1}}', '{"$unset":{"a.b":true,"c":1,"d.e":0}}', '{"a":{}}'],
    ['{"a":[1,2,3]}', '{"$unset":{"a.1":""}}', '{"a":[1,null,3]}'],
    ['{"a":[1]}', '{"$unset":{"a.5":"","a.x":""}}', '{"a":[1]}'],
    ['{"a":1}', '{"$unset":{"a.b":""}}', '{"a":1}'],
  ])('changes %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });
});

describe('$inc and $mul', () => {
  it.each([
    ['{"a":1.10}', '{"$inc":{"a":0.10}}', '{"a":1.20}'],
    ['{"a":0.1}', '{"$inc":{"a":0.2}}', '{"a":0.3}'],
    ['{"a":12345678901234567890}', '{"$inc":{"a":-1}}', '{"a":12345678901234567889}'],
    ['{"a":1e3}', '{"$inc":{"a":0.5}}', '{"a":1000.5}'],
    ['{"a":-0}', '{"$inc":{"a":0}}', '{"a":0}'],
    ['{}', '{"$inc":{"a.b":1.50}}', '{"a":{"b":1.50}}'],
    ['{"a":10.00}', '{"$mul":{"a":1.5}}', '{"a":15.00}'],
    ['{"a":[2,3]}', '{"$mul":{"a.1":-3},"$inc":{"a.0":1}}', '{"a":[3,-9]}'],
    ['{}', '{"$mul":{"a":7.5}}', '{"a":0}'],
  ])('change %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });

  it.each([
    ['"1"', 'the present value is a string, not a number'],
    ['null', 'the present value is null, not a number'],
    ['true', 'the present value is a boolean, not a number'],
    ['[1]', 'the present value is an array, not a number'],
    ['{"b":1}', 'the present value is an object, not a number'],
    ['1e999999999', 'the present number has over 34 digits, written in full'],
    ['9'.repeat(34), 'the result has over 34 digits, written in full'],
  ])('do not fit %s', (value, message) => {
    expect(() => apply(`{"a":${value}}`, '{"$inc":{"a":1}}')).toThrow(
      refused('patch_inapplicable', 'body.$inc.a', message),
    );
  });

  it.each(['"1"', 'null', '1e999999999', '1e-999999999', '9'.repeat(35), '{"$numberDecimal":"1"}'])(
    'refuse the operand %s',
    (operand) => {
      for (const operator of ['$inc', '$mul'])
        expect(() => read(`{"${operator}":{"a":${operand}}}`)).toThrow(
          refused('invalid_patch', `body.${operator}.a`),
        );
    },
  );
});

describe('$min and $max', () => {
  it.each([
    ['{"a":5}', '{"$min":{"a":4.50}}', '{"a":4.50}'],
    ['{"a":5.0}', '{"$min":{"a":5}}', '{"a":5.0}'],
    ['{"a":5}', '{"$max":{"a":4}}', '{"a":5}'],
    ['{"a":12345678901234567890}', '{"$max":{"a":12345678901234567891}}', '{"a":12345678901234567891}'],
    ['{"a":1e400}', '{"$max":{"a":1e401}}', '{"a":1e401}'],
    ['{"a":"b"}', '{"$max":{"a":"c"}}', '{"a":"c"}'],
    ['{"a":5}', '{"$max":{"a":"x"}}', '{"a":"x"}'],
    ['{"a":5}', '{"$min":{"a":null}}', '{"a":null}'],
    ['{}', '{"$min":{"a":1},"$max":{"b.c":2}}', '{"a":1,"b":{"c":2}}'],
  ])('change %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });
});

describe('$push', () => {
  it.each([
    ['{"a":[1]}', '{"$push":{"a":2.0}}', '{"a":[1,2.0]}'],
    ['{}', '{"$push":{"a.b":1}}', '{"a":{"b":[1]}}'],
    ['{"a":[1]}', '{"$push":{"a":[2,3]}}', '{"a":[1,[2,3]]}'],
    ['{"a":[1]}', '{"$push":{"a":{"x":1}}}', '{"a":[1,{"x":1}]}'],
    ['{"a":[1]}', '{"$push":{"a":{"$each":[2,3]}}}', '{"a":[1,2,3]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[7,8],"$position":0}}}', '{"a":[7,8,1,2]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[7,8],"$position":-1}}}', '{"a":[1,7,8,2]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[7],"$position":-9007199254740991}}}', '{"a":[7,1,2]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[7],"$position":9007199254740991}}}', '{"a":[1,2,7]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[3,4],"$slice":3}}}', '{"a":[1,2,3]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[3,4],"$slice":-3}}}', '{"a":[2,3,4]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[],"$slice":-1}}}', '{"a":[2]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[3],"$slice":-0}}}', '{"a":[]}'],
    ['{"a":[1,2]}', '{"$push":{"a":{"$each":[3],"$slice":-9007199254740991}}}', '{"a":[1,2,3]}'],
    ['{"a":[]}', '{"$push":{"a":{"$each":[{"$each":1}]}}}', '{"a":[{"$each":1}]}'],
    ['{"a":[ 1, 2 ]}', '{"$push":{"a":{"$each":[3,4]}}}', '{"a":[ 1, 2, 3, 4 ]}'],
  ])('changes %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });

  it('does not fit a value that is no array', () => {
    expect(() => apply('{"a":null}', '{"$push":{"a":1}}')).toThrow(
      refused('patch_inapplicable', 'body.$push.a', 'the present value is null, not an array'),
    );
  });

  it.each([
    ['{"$each":1}', 'body.$push.a.$each'],
    ['{"$position":1}', 'body.$push.a.$each'],
    ['{"$each":[],"$position":1.5}', 'body.$push.a.$position'],
    ['{"$each":[],"$position":1e300}', 'body.$push.a.$position'],
    ['{"$each":[],"$slice":"1"}', 'body.$push.a.$slice'],
    ['{"$each":[],"$sort":1}', 'body.$push.a'],
    ['{"$each":[],"b":1}', 'body.$push.a'],
  ])('refuses the operand %s', (operand, path) => {
    expect(() => read(`{"$push":{"a":${operand}}}`)).toThrow(refused('invalid_patch', path));
  });
});

describe('$addToSet', () => {
  it.each([
    ['{"a":[1]}', '{"$addToSet":{"a":2}}', '{"a":[1,2]}'],
    ['{"a":[1.0]}', '{"$addToSet":{"a":1}}', '{"a":[1.0]}'],
    ['{"a":["x"]}', '{"$addToSet":{"a":"\\u0078"}}', '{"a":["x"]}'],
    ['{"a":[1,1]}', '{"$addToSet":{"a":{"$each":[2,2.0,1]}}}', '{"a":[1,1,2]}'],
    ['{"a":[{"x":1,"y":2}]}', '{"$addToSet":{"a":{"y":2,"x":1}}}', '{"a":[{"x":1,"y":2}]}'],
    ['{"a":[]}', '{"$addToSet":{"a":[1]}}', '{"a":[[1]]}'],
    ['{}', '{"$addToSet":{"a":{"$each":[1,1]}}}', '{"a":[1]}'],
    [
      '{"a":[12345678901234567890]}',
      '{"$addToSet":{"a":12345678901234567891}}',
      '{"a":[12345678901234567890,12345678901234567891]}',
    ],
  ])('changes %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });

  it('refuses members that only $push has', () => {
    expect(() => read('{"$addToSet":{"a":{"$each":[1],"$slice":1}}}')).toThrow(
      refused('invalid_patch', 'body.$addToSet.a', '$slice: unknown; known are $each'),
    );
  });
});

describe('$pull', () => {
  it.each([
    ['{"a":[1,2,1.0]}', '{"$pull":{"a":1}}', '{"a":[2]}'],
    ['{"a":[[1],1]}', '{"$pull":{"a":1}}', '{"a":[[1]]}'],
    ['{"a":[[1.0],[1,2]]}', '{"$pull":{"a":[1]}}', '{"a":[[1,2]]}'],
    ['{"a":[1,5,9,"x"]}', '{"$pull":{"a":{"$gte":5}}}', '{"a":[1,"x"]}'],
    ['{"a":[1,5,9]}', '{"$pull":{"a":{"$in":[1,9]}}}', '{"a":[5]}'],
    ['{"a":[{"q":1,"z":0},{"q":2},3]}', '{"$pull":{"a":{"q":1}}}', '{"a":[{"q":2},3]}'],
    ['{"a":[[{"q":1}],{"q":1}]}', '{"$pull":{"a":{"q":1}}}', '{"a":[[{"q":1}]]}'],
    ['{"a":[[],{},null]}', '{"$pull":{"a":{}}}', '{"a":[[],null]}'],
    ['{"a":[{"q":[1,2]},{"q":3}]}', '{"$pull":{"a":{"q":{"$lt":3}}}}', '{"a":[{"q":3}]}'],
    ['{"a":[{"q":1},{"r":2},3]}', '{"$pull":{"a":{"$or":[{"q":1},{"r":2}]}}}', '{"a":[3]}'],
    ['{"a":[1e400,1e401]}', '{"$pull":{"a":{"$gt":1e400}}}', '{"a":[1e400]}'],
    ['{"b":1}', '{"$pull":{"a":1,"c.d":2}}', '{"b":1}'],
    ['{"a":[ 1 ]}', '{"$pull":{"a":2}}', '{"a":[ 1 ]}'],
  ])('changes %s by %s to %s', (document, update, expected) => {
    expect(apply(document, update)).toBe(expected);
  });

  it('refuses a condition as a query does, by its place', () => {
    expect(() => read('{"$pull":{"a.b":{"q":{"$gtt":1}}}}')).toThrow(
      refused('invalid_patch', 'body.$pull.a.b.q', expect.stringContaining('$gtt (did you mean $gt?)')),
    );
  });

  it('does not fit a value that is no array', () => {
    expect(() => apply('{"a":"x"}', '{"$pull":{"a":"x"}}')).toThrow(
      refused('patch_inapplicable', 'body.$pull.a', 'the present value is a string, not an array'),
    );
  });
});

describe('$currentDate', () => {
  it('writes one time, in RFC 3339 with milliseconds and in UTC, at all its paths', () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.UTC(2026, 0, 2, 3, 4, 5, 6) });
    expect(apply('{"a":1}', '{"$currentDate":{"a":true,"b.c":{"$type":"date"}}}')).toBe(
      '{"a":"2026-01-02T03:04:05.006Z","b":{"c":"2026-01-02T03:04:05.006Z"}}',
    );
  });

  it.each(['false', '1', '{"$type":"timestamp"}', '"date"'])('refuses the operand %s', (operand) => {
    expect(() => read(`{"$currentDate":{"a":${operand}}}`)).toThrow(
      refused('invalid_patch', 'body.$currentDate.a', 'must be true or {"$type":"date"}'),
    );
  });
});

describe('an update', () => {
  it('keeps every character that it does not change', () => {
    const document = '{ "n": 12345678901234567890,\n  "m":1.10, "\\u006f" : {"x" :[ 1e400 , "\\u0061" ] } }';
    expect(apply(document, '{"$inc":{"m":0.1}}')).toBe(document.replace('1.10', '1.20'));
    expect(apply(document, '{"$set":{"o.x.0":5.0}}')).toBe(document.replace('1e400', '5.0'));
    expect(apply(document, '{"$push":{"o.x":-0}}')).toBe(document.replace('"\\u0061" ', '"\\u0061", -0 '));
    expect(apply(document, '{"$addToSet":{"o.x":"a"},"$max":{"n":0},"$unset":{"z":1}}')).toBe(document);
  });

  it.each([
    [
      'an unknown operator',
      '{"$incr":{"a":1}}',
      'body',
      expect.stringMatching(/^\$incr \(did you mean \$inc\?\): unknown; known are \$set, /),
    ],
    [
      'a member without an operator',
      '{"stars":1}',
      'body',
      expect.stringMatching(/^stars: unknown; known are \$set, /),
    ],
    ['nothing', '{}', 'body', 'must have an operator, such as "$set"'],
    ['a list', '[]', 'body', 'must be an object'],
    ['an operand that is no object', '{"$set":1}', 'body.$set', 'must be an object'],
    [
      'metadata',
      '{"$set":{"_rev":1}}',
      'body.$set._rev',
      'a path must not begin with "_": such names are metadata',
    ],
    [
      'an empty name',
      '{"$set":{"a..b":1}}',
      'body.$set.a..b',
      'a path is names joined by dots, none of them empty',
    ],
    [
      'a positional operator',
      '{"$set":{"a.$[].b":1}}',
      'body.$set.a.$[].b',
      'a name in a path must not begin with $',
    ],
    [
      'a prototype',
      '{"$set":{"a.__proto__.b":1}}',
      'body.$set.a.__proto__.b',
      'a path must not name "__proto__"',
    ],
    [
      'a deep path',
      `{"$set":{"a${'.a'.repeat(12)}":1}}`,
      `body.$set.a${'.a'.repeat(12)}`,
      'a path goes at most 12 levels down',
    ],
    [
      'a long path',
      `{"$set":{"${'a'.repeat(513)}":1}}`,
      `body.$set.${'a'.repeat(513)}`,
      'a path has at most 512 characters',
    ],
    [
      'the same path twice',
      '{"$set":{"a":1},"$inc":{"a":1}}',
      'body.$inc.a',
      'conflicts with $set.a: an update changes each place once',
    ],
    [
      'a path inside another',
      '{"$set":{"a":1},"$inc":{"a.b.c":1}}',
      'body.$inc.a.b.c',
      'conflicts with $set.a: an update changes each place once',
    ],
    [
      'a path around another',
      '{"$set":{"a.b.c":1},"$unset":{"a":1}}',
      'body.$unset.a',
      'conflicts with $set.a.b.c: an update changes each place once',
    ],
    [
      'too many paths',
      JSON.stringify({ $set: Object.fromEntries(Array.from({ length: 501 }, (_, n) => [`a${n}`, 1])) }),
      'body',
      'must have at most 500 paths',
    ],
  ])('is refused as invalid with %s', (_what, update, path, message) => {
    expect(() => read(update)).toThrow(refused('invalid_patch', path, message));
  });

  it.each(['{"$set":{"a":1,"a":2}}', '{"$set":{"a":{"b":1,"b":2}}}', '{"$set":{"__proto__":1}}', ''])(
    'is refused as invalid JSON: %s',
    (update) => {
      expect(() => read(update)).toThrow(refused('invalid_json'));
    },
  );

  it('repeats no long name in a refusal', () => {
    const name = 'a'.repeat(100_000);
    for (const update of [`{"$set":{"${name}":1}}`, `{"${name}":1}`, `{"$inc":{"${name}.b":1}}`])
      try {
        read(update);
        expect.unreachable();
      } catch (error) {
        expect(JSON.stringify((error as { errors: unknown }).errors).length).toBeLessThan(2_000);
      }
  });

  it('cannot nest a document too deep to be read', () => {
    const deep = `${'['.repeat(98)}${']'.repeat(98)}`;
    expect(apply('{}', `{"$set":{"a":${deep}}}`)).toContain(deep);
    expect(() => apply('{}', `{"$set":{"a.b.c":${deep}}}`)).toThrow(refused('patch_inapplicable'));
  });

  it('cannot exceed the maximum document size, not even by white space that it copies', () => {
    const own = (text: string) => ({ bytes: Buffer.from(text), hasMembers: true });
    const change = (text: string, update: string, bytesMax: number) =>
      patchContent(own(text), read(update), bytesMax).bytes.toString();
    expect(change('"a":["x"]', '{"$push":{"a":"€"}}', 17)).toBe('"a":["x","€"]');
    expect(() => change('"a":["x"]', '{"$push":{"a":"€"}}', 16)).toThrow(refused('payload_too_large'));
    const many = `{"$push":{"a":{"$each":[${'1,'.repeat(3_000)}1]}}}`;
    expect(() => change(`"a":[${' '.repeat(64)}1]`, many, 100_000)).toThrow(refused('payload_too_large'));
  });

  it('changes thousands of items in time that grows with the array, not with its square', () => {
    const array = `[${Array.from({ length: 50_000 }, (_, n) => n).join(',')}]`;
    const document = `{"a":${array},"b":${array}}`;
    const update = `{"$addToSet":{"a":{"$each":${array}}},"$push":{"b":{"$each":${array},"$position":1}}}`;
    expect(apply(document, update).length).toBe(document.length + array.length - 1);
  });

  it('goes to the thread for large documents by its tests as well as by the size', async () => {
    const elsewhere = vi.fn(async (job: Job<unknown, unknown>, input: unknown) =>
      job.run(structuredClone(input)),
    );
    const work = { elsewhere, pause: () => undefined, leave: () => undefined } as unknown as Work;
    const own = { bytes: Buffer.from(`"n":1,"a":[${'0,'.repeat(20_000)}1]`), hasMembers: true };
    const change = async (update: string) => {
      const { bytes } = await patchContentInTurns(own, read(update), 1_000_000, work);
      return bytes.toString();
    };
    expect(await change('{"$inc":{"n":1},"$push":{"a":2}}')).toMatch(/^"n":2,.*,1,2\]$/);
    expect(elsewhere).not.toHaveBeenCalled();
    expect(await change('{"$inc":{"n":1},"$pull":{"a":{"$lt":1}}}')).toBe('"n":2,"a":[1]');
    expect(await change('{"$addToSet":{"a":1}}')).toBe(own.bytes.toString());
    expect(elsewhere).toHaveBeenCalledTimes(2);
  });

  it('is refused when conditions would test too many values', () => {
    const items = PATCH_WORK_MAX / 50 + 1;
    const document = `{"a":[${'0,'.repeat(items - 1)}0]}`;
    const not = (count: number) =>
      `{"$pull":{"a":{"$or":[${Array.from({ length: count }, (_, n) => `{"q":${n}}`).join(',')}]}}}`;
    expect(apply(document, not(10))).toBe(document);
    expect(() => apply(document, not(90))).toThrow(refused('payload_too_large'));
  });
});
