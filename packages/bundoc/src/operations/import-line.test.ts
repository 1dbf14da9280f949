import { describe, expect, it } from 'vitest';
import { readImportLine } from './import-line.ts';
import { InvalidLine } from './ndjson.ts';

const read = (text: string, collection?: string) => readImportLine({ text, number: 7, end: 0 }, collection);
const head = '"_id":"a","_collection":"notes","_rev":"0123","_created":"x","_updated":"y"';

describe('a line of an import', () => {
  it.each([
    [`{${head}, "n": 12345678901234567890 }`, '{ "n": 12345678901234567890 }'],
    [`{${head}}`, '{}'],
    [`{${head} }`, '{ }'],
  ])('keeps a document that Bundoc has written byte for byte: %s', (line, text) => {
    expect(read(line)).toEqual({ op: 'put', collection: 'notes', id: 'a', text, from: 'notes' });
  });

  it("keeps the texts of another source's members, without metadata", () => {
    expect(read('{ "n": 1.10, "_rev": "1-x", "_id": "a" }', 'c')).toEqual({
      op: 'put',
      collection: 'c',
      id: 'a',
      text: '{"n":1.10}',
    });
    expect(read('{"n": 1.10}', 'c')).toEqual({ op: 'create', collection: 'c', text: '{"n": 1.10}' });
  });

  it('goes to the requested collection, otherwise to its own', () => {
    expect(read(`{${head}}`, 'other')).toMatchObject({ collection: 'other' });
    expect(() => read('{}')).toThrow('line 7 does not say its collection');
  });

  it('may be a deletion', () => {
    expect(read('{"_id":"a","_collection":"c","_deleted":true}')).toEqual({
      op: 'delete',
      collection: 'c',
      id: 'a',
      from: 'c',
    });
    expect(() => read('{"_collection":"c","_deleted":true}')).toThrow('has no _id');
  });

  it.each([
    ['{"n":1,}', 'column 8: no comma may follow the last item'],
    ['{"n":1}}', 'column 8'],
    ['{"n":"planted"', 'column 15: the text ends too early'],
    ['{"n":tru, "planted":1}', 'column 6: names and strings need double quotes'],
    ['{"n":NaN}', 'column 6: JSON has no NaN and no Infinity; write null or a string'],
    ['{"n":[', 'column 7: the text ends too early'],
  ])('says where and why %s is not JSON, and does not repeat it', (line, reason) => {
    expect(() => read(line, 'c')).toThrow(new InvalidLine(`line 7 is not JSON: ${reason}`));
  });

  it.each(['[{"n":1}]', '1'])('says that each line is a document when it is another value: %s', (line) => {
    expect(() => read(line, 'c')).toThrow(
      'line 7 is not a JSON object: NDJSON has one document on each line',
    );
  });

  it.each(['[]', '1', 'x', '{"_id":1}'])('is refused with its number when it is invalid: %s', (line) => {
    expect(() => read(line, 'c')).toThrow('line 7');
  });
});
