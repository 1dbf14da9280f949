import { describe, expect, it } from 'vitest';
import { etagOf, isNotModified, writePrecondition } from './precondition-headers.ts';

const REV = 'a1'.repeat(12);

describe('the precondition of a write', () => {
  it.each([
    [{}, { kind: 'none' }],
    [{ 'if-none-match': '*' }, { kind: 'absent' }],
    [{ 'if-match': ' * ' }, { kind: 'present' }],
    [{ 'if-match': etagOf(REV) }, { kind: 'revision', anyOf: [REV] }],
    [{ 'if-match': `W/"${REV}"` }, { kind: 'revision', anyOf: [] }],
    [{ 'if-match': `"x" ,W/"${REV}"` }, { kind: 'revision', anyOf: ['x'] }],
    [{ 'if-match': `W/"x" ,"${REV}"` }, { kind: 'revision', anyOf: [REV] }],
    [{ 'if-match': `, ,"${REV}" , ,"x",` }, { kind: 'revision', anyOf: [REV, 'x'] }],
    [{ 'if-match': Array(32).fill('"a"').join(',') }, { kind: 'revision', anyOf: Array(32).fill('a') }],
  ])('reads %j as %j', (headers, meaning) => {
    expect(writePrecondition(headers)).toEqual(meaning);
  });

  it.each([
    { 'if-match': REV },
    { 'if-match': '' },
    { 'if-match': '"a" "b"' },
    { 'if-match': ' , ' },
    { 'if-match': '"a""b"' },
    { 'if-match': '"a", b' },
    { 'if-match': 'w/"a"' },
    { 'if-match': '"a' },
    { 'if-match': '*, "a"' },
    { 'if-match': Array(33).fill('"a"').join(',') },
    { 'if-none-match': '"a"' },
    { 'if-none-match': '*', 'if-match': '*' },
  ])('refuses %j', (headers) => {
    expect(() => writePrecondition(headers)).toThrow(expect.objectContaining({ code: 'invalid_request' }));
  });
});

it('a list of tags is parsed in linear time', () => {
  for (const run of [' ', ',', ', ', '"a",'])
    for (const [head, tail] of [
      ['', 'x'],
      ['"a"', 'x'],
      ['"a",', '"'],
    ]) {
      const started = performance.now();
      expect(() => writePrecondition({ 'if-match': `${head}${run.repeat(500_000)}${tail}` })).toThrow();
      expect(performance.now() - started).toBeLessThan(2_000);
    }
});

describe('a conditional read', () => {
  it.each([
    [{}, false],
    [{ 'if-none-match': etagOf(REV) }, true],
    [{ 'if-none-match': `W/"${REV}"` }, true],
    [{ 'if-none-match': '*' }, true],
    [{ 'if-none-match': '"other"' }, false],
    [{ 'if-match': etagOf(REV) }, false],
  ])('has the answer "not modified" with %j: %s', (headers, expected) => {
    expect(isNotModified(headers, REV)).toBe(expected);
  });

  it.each([`W/"${REV}"`, `"other", W/"${REV}"`])(
    'is refused with If-Match: %s, which compares strongly',
    (tags) => {
      expect(() => isNotModified({ 'if-match': tags }, REV)).toThrow(
        expect.objectContaining({ code: 'precondition_failed' }),
      );
    },
  );

  it('is refused for another revision than If-Match names', () => {
    expect(() => isNotModified({ 'if-match': '"other"' }, REV)).toThrow(
      expect.objectContaining({ code: 'precondition_failed' }),
    );
  });
});
