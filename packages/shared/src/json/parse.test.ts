import { describe, expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import { cpuMsOf } from '../testing/timing.ts';
import { type ParsedJsonObject, parseJsonObject } from './parse.ts';
import { JSON_DEPTH_MAX, scanJson } from './scan.ts';

function refusal(bytes: Buffer | undefined): AppError {
  try {
    parseJsonObject(bytes);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

function accepted(text: string): ParsedJsonObject {
  return parseJsonObject(Buffer.from(text));
}

const nested = (depth: number, open = '[', close = ']') =>
  Buffer.from(`{"a":${open.repeat(depth - 1)}0${close.repeat(depth - 1)}}`);

describe('parseJsonObject', () => {
  it.each([
    ['nothing', undefined, 'the body is empty'],
    ['no bytes', Buffer.alloc(0), 'the body is empty'],
    ['white space alone', Buffer.from(' \n'), 'line 2, column 1: the text ends too early'],
    ['a byte order mark', Buffer.from('\ufeff{}'), 'the text begins with a byte order mark'],
    ['UTF-16', Buffer.from('{"a":1}', 'utf16le'), 'line 1, column 2'],
    ['an invalid UTF-8 byte', Buffer.from('{"a":"\xff"}', 'latin1'), 'the text is not valid UTF-8'],
    ['an overlong encoding', Buffer.from('{"a":"\xc0\xaf"}', 'latin1'), 'the text is not valid UTF-8'],
    ['a raw surrogate', Buffer.from('{"a":"\xed\xa0\x80"}', 'latin1'), 'the text is not valid UTF-8'],
    ['a truncated character', Buffer.from('{"a":"\xf0\x9f"}', 'latin1'), 'the text is not valid UTF-8'],
    ['an array', Buffer.from('[{}]'), 'the text is not a JSON object'],
    ['a string', Buffer.from('"{}"'), 'the text is not a JSON object'],
    ['a number', Buffer.from('1'), 'the text is not a JSON object'],
    ['null', Buffer.from('null'), 'the text is not a JSON object'],
    ['two objects', Buffer.from('{}{}'), 'line 1, column 3'],
    ['a trailing comma', Buffer.from('{"a":1,}'), 'line 1, column 8: no comma may follow the last item'],
    ['a comment', Buffer.from('{/*a*/}'), 'line 1, column 2: JSON has no comments'],
    ['single quotes', Buffer.from("{'a':1}"), 'line 1, column 2: names and strings need double quotes'],
    [
      'NaN',
      Buffer.from('{"a":NaN}'),
      'line 1, column 6: JSON has no NaN and no Infinity; write null or a string',
    ],
    ['a leading zero', Buffer.from('{"a":01}'), 'line 1, column 7'],
    [
      'a raw control character',
      Buffer.from('{"a":"\n"}'),
      'line 1, column 7: write \\n or \\t for a line break or a tab in a string',
    ],
    ['a raw NUL', Buffer.from('{"a":1}\0'), 'line 1, column 8'],
    ['a no-break space', Buffer.from('{\u00a0}'), 'line 1, column 2'],
    ['an unterminated string', Buffer.from('{"a":"'), 'line 1, column 7: the text ends too early'],
    ['a bad escape in a name', Buffer.from('{"\\x":1}'), 'line 1, column 3'],
    ['a duplicate name', Buffer.from('{"a":1,"a":1}'), 'a name occurs twice in one object: line 1, column 8'],
    [
      'an escaped duplicate',
      Buffer.from('{"a":1,"\\u0061":2}'),
      'a name occurs twice in one object: line 1, column 8',
    ],
    [
      'two spellings',
      Buffer.from('{"\\u0061":1,"\\u0061":2}'),
      'a name occurs twice in one object: line 1, column 13',
    ],
    [
      'an escaped slash',
      Buffer.from('{"/":1,"\\/":2}'),
      'a name occurs twice in one object: line 1, column 8',
    ],
    [
      'a deep duplicate',
      Buffer.from('{"a":[{"b":{"c":1,"c":2}}]}'),
      'a name occurs twice in one object: line 1, column 19',
    ],
    [
      'a duplicate empty name',
      Buffer.from('{"":1,"":2}'),
      'a name occurs twice in one object: line 1, column 7',
    ],
    [
      'a surrogate pair twice',
      Buffer.from('{"😀":1,"\\ud83d\\ude00":2}'),
      'a name occurs twice in one object: line 1, column 9',
    ],
    ['__proto__', Buffer.from('{"__proto__":1}'), 'a member is called "__proto__": line 1, column 2'],
    [
      'an escaped __proto__',
      Buffer.from('{"\\u005f_proto__":1}'),
      'a member is called "__proto__": line 1, column 2',
    ],
    [
      'a deep __proto__',
      Buffer.from('{"a":[[{"__pr\\u006fto__":{}}]]}'),
      'a member is called "__proto__": line 1, column 9',
    ],
    ['arrays nested too deep', nested(JSON_DEPTH_MAX + 1), 'the text nests deeper than 100'],
    ['objects nested too deep', nested(JSON_DEPTH_MAX + 1, '{"a":', '}'), 'the text nests deeper than 100'],
  ])('refuses %s', (_what, bytes, detail) => {
    const error = refusal(bytes);
    expect(error.code).toBe('invalid_json');
    expect(error.detail).toBe(detail);
    expect(error.cause).toBeUndefined();
  });

  it.each([
    ['one hundred levels', nested(JSON_DEPTH_MAX).toString()],
    ['the same name in two objects', '{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}'],
    ['a name that is a value elsewhere', '{"a":"a","b":["a","a","b"]}'],
    ['constructor and prototype', '{"constructor":{"prototype":{"x":1}},"toString":1,"hasOwnProperty":2}'],
    ['__proto__ as a value', '{"a":"__proto__"}'],
    ['brackets in strings', `{"${'['.repeat(200)}":"${'{'.repeat(200)}"}`],
    ['lone surrogate escapes', '{"\\ud800":"\\udfff","\\ud801":1}'],
    ['names that differ by normalisation only', '{"\u00e9":1,"e\u0301":2}'],
    [
      'more than a handful of names',
      JSON.stringify(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`n${i}`, i]))),
    ],
    ['white space everywhere', ' \t\r\n{ "a" : [ 1 , 2 ] , "b" : { } } \n'],
  ])('accepts %s as JSON.parse does', (_what, text) => {
    expect(accepted(text).value).toEqual(JSON.parse(text));
  });

  it('reads an escaped name correctly, whatever name an earlier text had in its place', () => {
    // Each of these makes V8's own JSON.parse misread the next (nodejs/node#63785).
    for (const [earlier, text, name] of [
      ['{"h":1,"\\\\u0":1}', '{"h":1,"\\u005fid":2}', '_id'],
      ['{"i":1,"\\\\":1}', '{"i":1,"\\u0061":2}', 'a'],
      ['{"j":1,"\\\\":1}', '{"j":1,"\\"":2}', '"'],
      ['{"k":1,"a\\\\u":1}', '{"k":1,"a\\u0062c":2}', 'abc'],
    ] as const) {
      JSON.parse(earlier);
      accepted(earlier);
      const { value, scan } = accepted(text);
      expect(Object.keys(value)[1]).toBe(name);
      expect(value[name]).toBe(2);
      expect(scan.members[1]?.name).toBe(name);
    }
  });

  it('keeps numbers, nesting and order in a text with escaped names', () => {
    const text =
      ' {"\\u0062": [1.10, -0, 1e400, true, null, "\\"}]" , [ ] ], "10": { }, "a": {"\\n": {"x":"\\\\"}}} ';
    expect(accepted(text).value).toEqual({
      10: {},
      b: [1.1, -0, Number.POSITIVE_INFINITY, true, null, '"}]', []],
      a: { '\n': { x: '\\' } },
    });
  });

  it('finds a duplicate among thousands of names', () => {
    const names = Array.from({ length: 5_000 }, (_, index) => `"n${index}":0`);
    expect(refusal(Buffer.from(`{${names.join()},"n1\\u0037":0}`)).detail).toBe(
      'a name occurs twice in one object: line 1, column 48892',
    );
  });

  it('refuses two hundred thousand brackets without reading what follows', () => {
    for (const bracket of ['[', '{"a":', '[{"a":']) {
      const bytes = Buffer.from(bracket.repeat(200_000));
      const ms = cpuMsOf(() => {
        expect(refusal(bytes).detail).toBe('the text nests deeper than 100');
      });
      expect(ms).toBeLessThan(100);
    }
  });

  it('never quotes its input', () => {
    const secret = 'hunter2';
    for (const text of [
      secret,
      `{"${secret}":`,
      `{"a":${secret}}`,
      `{"${secret}":1,"${secret}":2}`,
      `{"a":"${secret}\n"}`,
      `{"__proto__":"${secret}"}`,
      `["${secret}"]`,
    ]) {
      const error = refusal(Buffer.from(text));
      expect(`${error.message} ${error.detail} ${error.stack} ${JSON.stringify(error)}`).not.toContain(
        secret,
      );
    }
  });
});

describe('scanJson takes linear time', () => {
  /** Counts the reads of bytes, which do not depend on the load of the machine. */
  function looks(text: string): number {
    const bytes = Buffer.from(text);
    let count = 0;
    const counting = new Proxy(bytes, {
      get(target, property) {
        if (typeof property === 'string' && /^-?\d+$/.test(property)) count++;
        if (property === 'indexOf')
          return (value: number, from: number) => {
            const found = target.indexOf(value, from);
            count += (found === -1 ? target.length : found) - from;
            return found;
          };
        if (property === 'toString')
          return (encoding: BufferEncoding, start: number, end: number) => {
            count += end - start;
            return target.toString(encoding, start, end);
          };
        return Reflect.get(target, property, target);
      },
    });
    scanJson(counting);
    return count;
  }

  const size = 4_096;
  it.each([
    ['backslashes in a value', `{"a":"${'\\'.repeat(size)}"}`],
    ['escaped quotes in a value', `{"a":"${'\\"'.repeat(size)}"}`],
    ['backslashes and quotes in a name', `{"${'\\\\\\"'.repeat(size)}":1}`],
    ['backslashes and quotes, unterminated', `{"a":"${'\\\\\\"'.repeat(size)}`],
    ['backslashes and no quote', `{"a":"${'\\'.repeat(size)}`],
    ['quotes alone', '"'.repeat(size)],
    ['backslashes between strings', `${'"\\\\"'.repeat(size)}`],
    ['many names', `{${'"a":1,'.repeat(size)}}`],
  ])('over %s', (_what, text) => {
    expect(looks(text)).toBeLessThan(text.length * 8);
  });

  it('over a mebibyte of each hostile text, in a fraction of a second', () => {
    const many = 2 ** 18;
    for (const text of [
      `{"a":"${'\\"\\\\'.repeat(many)}"}`,
      `{"${'\\"\\\\'.repeat(many)}":"a"}`,
      '"\\'.repeat(2 * many),
    ]) {
      expect(cpuMsOf(() => scanJson(Buffer.from(text)))).toBeLessThan(1_000);
    }
  });
});
