import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { couchdb } from './couchdb.ts';
import { firestore } from './firestore.ts';
import { type ForeignFormat, foreignLines } from './foreign.ts';
import { mongoexport } from './mongoexport.ts';
import { textBytes } from './source-kind.ts';

/** What an import of a source gives: the texts of lines, and what is said. */
async function read(format: ForeignFormat, source: string | Buffer, chunkBytes = 7) {
  const bytes = Buffer.from(source);
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  const said: string[] = [];
  const report = { refused: 0, skipped: 0 };
  const texts: string[] = [];
  const places: [number, number][] = [];
  const lines = foreignLines(textBytes(chunks()), format, (sentence) => said.push(sentence), report);
  for await (const { text, number, end } of lines) {
    texts.push(text);
    places.push([number, end]);
  }
  return { texts, said, places, ...report };
}

const page = readFileSync(
  fileURLToPath(new URL('../../../../docs/operations/bundoc-cli.md', import.meta.url)),
  'utf8',
);
/** The rows of the table of types behind a heading in bold. */
function rowsOf(heading: string): [string, string][] {
  const [section = ''] = page.slice(page.indexOf(`**${heading}.**`) + 2).split(/\n(?:\*\*|#)/);
  return [...section.matchAll(/^\|[^|]*\| `(.*?)` \| (?:`(.*?)`|(refused)) \|/gm)].map(
    ([, value = '', stored, refused = '']) => [value, stored ?? refused],
  );
}

const NAME = 'projects/p/databases/(default)/documents';

describe('the documented table of types', () => {
  const mongo = rowsOf('MongoDB');
  it.each(mongo)('stores %s of MongoDB as %s', async (value, stored) => {
    const { texts, said } = await read(mongoexport, `{"_id":"a","v":[${value}]}`);
    if (stored === 'refused') expect([texts, said]).toEqual([[], [expect.stringContaining(' v.0: ')]]);
    else expect([texts, said]).toEqual([[`{"_id":"a","v":[${stored}]}`], []]);
  });

  const fire = rowsOf('Firestore');
  it.each(fire)('stores %s of Firestore as %s', async (value, stored) => {
    const source = `{"documents":[{"name":"${NAME}/c/a","fields":{"v":${value}}}]}`;
    const { texts, said } = await read(firestore, source);
    if (stored === 'refused') expect([texts, said]).toEqual([[], [expect.stringContaining(' v: ')]]);
    else expect([texts, said]).toEqual([[`{"_id":"a","_collection":"c","v":${stored}}`], []]);
  });

  it('has every type', () => {
    expect([mongo.length, fire.length]).toEqual([25, 15]);
  });
});

describe('an import of mongoexport', () => {
  const DOCUMENTS = ['{"_id":1,"a":1.10}', '{ "_id": 2,\r\n "b" : [ 12345678901234567890, "}\\"" ] }'];
  const TEXTS = ['{"_id":"1","a":1.10}', '{"_id":"2","b":[12345678901234567890,"}\\""]}'];

  it('reads lines, arrays and indented documents, with CRLF and a byte order mark', async () => {
    for (const source of [
      DOCUMENTS.join('\n'),
      `\uFEFF${DOCUMENTS.join('\r\n')}\r\n`,
      `[${DOCUMENTS.join(',')}]\n`,
      `[\n${DOCUMENTS.join(',\n')}\n]`,
    ])
      for (const chunkBytes of [1, 3, 1_000])
        expect(await read(mongoexport, source, chunkBytes)).toMatchObject({
          texts: TEXTS,
          said: [],
          refused: 0,
        });
    expect(await read(mongoexport, '')).toMatchObject({ texts: [] });
    expect(await read(mongoexport, '[ ]')).toMatchObject({ texts: [] });
  });

  it('names the line and the end of each document', async () => {
    const { places } = await read(mongoexport, '\n{"_id":"é"}\n\n[{"_id":2},\n{"_id":3}]');
    expect(places).toEqual([
      [2, 13],
      [4, 25],
      [5, 36],
    ]);
  });

  it.each([
    ['{"_id":{"$oid":"65A1B2C3D4E5F60718293A4B"}}', '65a1b2c3d4e5f60718293a4b'],
    ['{"_id":{"$numberLong":"7"}}', '7'],
    ['{"_id":7.5}', '7.5'],
    ['{"_id":{"$uuid":"01234567-89ab-cdef-0123-456789abcdef"}}', '01234567-89ab-cdef-0123-456789abcdef'],
    ['{"_id":{"$date":{"$numberLong":"0"}}}', '1970-01-01T00:00:00.000Z'],
    ['{"_id":"häuser:1"}', 'häuser:1'],
  ])('of %s has the id %s', async (document, id) => {
    expect((await read(mongoexport, document)).texts).toEqual([`{"_id":"${id}"}`]);
  });

  it('refuses by name what it cannot represent, and takes the other documents', async () => {
    const refused: readonly (readonly [document: string, reason: string])[] = [
      ['{"_id":{"a":1}}', '_id: an id is a text, a number'],
      ['{"_id":[1]}', '_id: an id is a text'],
      ['{"_id":null}', '_id: an id is a text'],
      ['{"_id":"a/b"}', '_id: "a/b" must not hold control characters or "/"'],
      ['{"_id":""}', '_id: "" must not be empty'],
      ['{"_id":"x","a":{"b":[0,{"$minKey":1}]}}', 'a.b.1: JSON has nothing like $minKey'],
      ['{"_id":"x","a":{"$numberInt":"2147483648"}}', 'a: the $numberInt cannot be read'],
      ['{"_id":"x","a":{"$numberLong":"9223372036854775808"}}', 'a: the $numberLong cannot be read'],
      ['{"_id":"x","a":{"$numberLong":1}}', 'a: the $numberLong cannot be read'],
      ['{"_id":"x","a":{"$numberInt":"07"}}', 'a: the $numberInt cannot be read'],
      ['{"_id":"x","a":{"$numberDouble":"1,5"}}', 'a: the $numberDouble cannot be read'],
      ['{"_id":"x","a":{"$oid":"12"}}', 'a: the $oid cannot be read'],
      ['{"_id":"x","a":{"$oid":"65a1b2c3d4e5f60718293a4b","b":1}}', 'a: $oid has members that'],
      ['{"_id":"x","a":{"$date":1700000000000}}', 'a: $date with a number is of Extended JSON v1'],
      ['{"_id":"x","a":{"$date":"2026-02-30T00:00:00Z"}}', 'a: $date is no time of the years'],
      ['{"_id":"x","a":{"$date":"2026-13-01T00:00:00Z"}}', 'a: $date is no time of the years'],
      ['{"_id":"x","a":{"$regex":"a","$options":""}}', 'a: $regex is of Extended JSON v1'],
      ['{"_id":"x","a":{"$binary":{"base64":"*","subType":"00"}}}', 'a: the $binary cannot be read'],
      ['{"_id":"x","a":{"$timestamp":{"t":1}}}', 'a: the $timestamp cannot be read'],
      ['{"_id":"x","a_":1,"_a":2}', '_a: the name is reserved, and the document has a_, too'],
      ['{"_id":"x","__":1}', '__: a name of underscores alone is reserved'],
      ['{"_id":"x","a":1,"a":2}', 'it is not acceptable JSON: a name occurs twice in one object: line 43'],
      ['{"_id":"x","a":NaN}', 'it is not acceptable JSON: line 45, column 16: JSON has no NaN'],
      ['{"total_rows":1,"rows":[]}', 'rows: this looks like an answer of CouchDB'],
    ];
    const good = (n: number) => `{"_id":"good${n}","__v":0,"_class":"com.example.A"}`;
    const source = refused.map(([document], n) => `${document}\n${good(n)}`).join('\n');
    const { texts, said, refused: count } = await read(mongoexport, source);
    expect(texts).toEqual(refused.map((_, n) => `{"_id":"good${n}","v__":0,"class_":"com.example.A"}`));
    expect(said).toEqual(
      refused.map(([, reason], n) =>
        expect.stringContaining(`document ${2 * n + 1}, line ${2 * n + 1} is refused: ${reason}`),
      ),
    );
    expect(count).toBe(refused.length);
  });

  it('takes one type of ids where two could have the same text', async () => {
    const oid = '65a1b2c3d4e5f60718293a4b';
    const { texts, said } = await read(
      mongoexport,
      `{"_id":7}{"_id":"7"}{"_id":"seven"}{"_id":{"$numberInt":"8"}}{"_id":"${oid}"}{"_id":{"$oid":"${oid}"}}`,
    );
    expect(texts).toEqual(['{"_id":"7"}', '{"_id":"seven"}', '{"_id":"8"}', `{"_id":"${oid}"}`]);
    expect(said).toEqual([
      expect.stringMatching(/^document 2, .*two types that both look like a number/),
      expect.stringMatching(/^document 6, .*two types that both look like an ObjectId/),
    ]);
  });
});

describe('an import of CouchDB', () => {
  const row = (doc: string) => `{"id":"a","key":"a","value":{"rev":"1-b"},"doc":${doc}}`;

  it('takes the documents of the rows, and skips design documents, deletions and rows without one', async () => {
    const rows = [
      row('{"_id":"a","_rev":"1-b","n": 1.10,"o":{ "_x":[ ] },"_conflicts":["1-c"]}'),
      row('{"_id":"_design/views","_rev":"1-b","views":{}}'),
      row('{"_id":"gone","_rev":"2-b","_deleted":true}'),
      row('null'),
      '{"key":"none","error":"not_found"}',
    ];
    const all = await read(couchdb, `{"total_rows":5,"offset":0,"rows":[\r\n${rows.join(',\r\n')}\r\n]}\n`);
    expect(all).toMatchObject({
      texts: ['{"_id":"a","n":1.10,"o":{ "_x":[ ] },"conflicts_":["1-c"]}'],
      said: [],
      skipped: 4,
      refused: 0,
    });
    const changes = `{"results":[{"seq":"1-x","id":"a","changes":[{"rev":"1-b"}],"doc":{"_id":"a","_rev":"1-b"}}],"last_seq":"1-x","pending":0}`;
    expect((await read(couchdb, changes)).texts).toEqual(['{"_id":"a"}']);
  });

  it('names documents whose attachments have no content in the export', async () => {
    const attached = (about: string) => row(`{"_id":"p","_rev":"1-b","_attachments":{"a.png":{${about}}}}`);
    const stub = await read(couchdb, `{"rows":[${attached('"stub":true,"length":5')}]}`);
    expect(stub.texts).toEqual(['{"_id":"p","attachments_":{"a.png":{"stub":true,"length":5}}}']);
    expect(stub.said).toEqual([expect.stringContaining('line 1 (p): the content of its attachments is not')]);
    const whole = await read(couchdb, `{"rows":[${attached('"data":"AQID"')}]}`);
    expect([whole.texts.length, whole.said]).toEqual([1, []]);
  });

  it.each([
    [
      '{"error":"unauthorized","reason":"none"}',
      'has no array rows or results, but error, reason: does --format',
    ],
    ['{"rows":[{"id":"a","key":"a","value":{"rev":"1-b"}}]}', 'request them with include_docs=true'],
    ['{"rows":5}', 'has no array rows or results, but rows'],
    ['{}', 'has no array rows or results, but no members'],
    ['', 'the source is empty: did the export fail?'],
    ['<html>', 'line 1 is not JSON: an object or an array is expected'],
    [`{"rows":[\n${row('{"_id":"a"}')}`, 'the source ends too early, in line 2'],
    [`{"rows":[\n${row('{"_id":"a"}').slice(0, -2)}`, 'the document that begins in line 2 has no end'],
    [`{"rows":[{"doc":null} {"doc":null}]}`, 'line 1 is not JSON: a comma is missing between two documents'],
    [`{"rows":[,]}`, 'line 1 is not JSON: a value is missing'],
    [`{"rows" []}`, 'line 1 is not JSON: a colon is expected'],
    [`{rows:[]}`, 'line 1 is not JSON: a name in double quotes'],
    [`{"rows":[]]`, 'line 1 is not JSON: a comma is missing between two members'],
    [`{"rows":[]}}`, 'line 1 is not JSON: an object or an array is expected'],
  ])('ends at %s, and says why', async (source, reason) => {
    await expect(read(couchdb, source)).rejects.toThrow(reason);
  });
});

describe('an import of Firestore', () => {
  const document = (path: string, fields = '') =>
    `{\n  "name": "${NAME}/${path}",\n  "fields": {${fields}},\n  "createTime": "2026-01-01T00:00:00Z"\n}`;

  it('takes pages of a list and results of queries, one behind the other', async () => {
    const source = [
      `{"documents":[${document('users/alice', '"_n":{"integerValue":"1"}')}],"nextPageToken":"x"}`,
      '{}',
      '{"nextPageToken":"y"}',
      `[{"document":${document('users/alice/orders/o1')},"readTime":"2026-01-01T00:00:00Z"}]`,
      '[{"readTime":"2026-01-01T00:00:00Z"}]',
    ].join('\n');
    expect(await read(firestore, source)).toMatchObject({
      texts: ['{"_id":"alice","_collection":"users","n_":1}', '{"_id":"alice:o1","_collection":"orders"}'],
      said: [],
      skipped: 1,
    });
  });

  it('refuses ids and values that it cannot represent', async () => {
    const documents = [
      document('users/a:b/orders/o1'),
      document('c/a', '"m":{"mapValue":{"fields":{"x":{"arrayValue":{"values":[{"integerValue":"1.x"}]}}}}}'),
      document('c/a', '"t":{"timestampValue":"yesterday"}'),
      document('c/a', '"t":{"stringValue":"a","integerValue":"1"}'),
      document('c/a', '"t":"plain"'),
      document('c/a', '"t":{"booleanValue":"true"}'),
      document('c/a', '"t":{"geoPointValue":{"latitude":"north"}}'),
    ];
    const { said, texts } = await read(firestore, `{"documents":[${documents.join(',')}]}`);
    expect(texts).toEqual([]);
    expect(said.map((one) => one.replace(/^.*refused: /, ''))).toEqual([
      'name: a ":" in an id of a subcollection would be ambiguous',
      'm.x.0: the integerValue cannot be read',
      't: the timestampValue cannot be read',
      't: is no value of Firestore',
      't: is no value of Firestore',
      't: the booleanValue cannot be read',
      't.latitude: is no number',
    ]);
  });

  it('ends at the answers of other systems and at errors', async () => {
    await expect(read(firestore, '{"error":{"code":403}}')).rejects.toThrow('no array documents, but error');
    await expect(read(firestore, '[{"error":{"code":403}}]')).rejects.toThrow(
      'without a name such as projects',
    );
    await expect(read(firestore, '{"_id":1,"a":2}')).rejects.toThrow('no array documents, but _id, a');
  });
});

describe('a source that is no text in UTF-8', () => {
  const JSON_TEXT = '{"_id":"a","title":"hello"}';
  it.each([
    ['compressed by gzip', Buffer.from('1f8b080000000000', 'hex'), 'gunzip -c'],
    ['UTF-16', Buffer.from(`\uFEFF${JSON_TEXT}`, 'utf16le'), 'iconv -f UTF-16 '],
    ['UTF-16 without a mark', Buffer.from(JSON_TEXT, 'utf16le'), 'iconv -f UTF-16LE'],
    [
      'BSON',
      Buffer.from('160000000268656c6c6f0006000000776f726c640000', 'hex'),
      'mongoexport, or run "bsondump"',
    ],
    ['an archive of mongodump', Buffer.from('6de29981660000000000', 'hex'), 'mongoexport'],
    ['SQLite', Buffer.from('SQLite format 3\0\x10\0'), 'sqlite3'],
    ['a dump of PostgreSQL', Buffer.from('PGDMP\x01\x0e\0\x04'), 'psql'],
    ['a ZIP archive', Buffer.from('PK\x03\x04\x14'), 'unpack'],
  ])('but %s is refused with the remedy', async (_name, bytes, remedy) => {
    await expect(read(mongoexport, bytes)).rejects.toThrow(remedy);
  });
});
