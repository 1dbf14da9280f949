import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Bundoc } from '@bundoc/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand, bundocProcess } from './support/bundoc-command.ts';
import { Installation } from './support/installation.ts';

let installation: Installation;
let environment: Record<string, string>;
let client: Bundoc;
beforeAll(async () => {
  installation = await Installation.start();
  const token = await installation.client();
  environment = { BUNDOC_URL: installation.url, BUNDOC_TOKEN: token };
  client = new Bundoc({ url: installation.url, token });
});
afterAll(() => installation[Symbol.asyncDispose]());

function written(name: string, content: string | Buffer): string {
  const path = join(installation.folder, name);
  writeFileSync(path, content);
  return path;
}
const importFile = (project: string, path: string, ...options: string[]) =>
  bundocCommand(environment, ['import', project, path, ...options]);

/** The documents of a collection as they are stored, without metadata. */
async function contentsOf(project: string, collection: string): Promise<Record<string, string>> {
  const contents: Record<string, string> = {};
  for await (const { id, text } of client.project(project).collection(collection).list())
    contents[id] = text.replace(/^.*"_updated":"[^"]*",?/, '{');
  return contents;
}

const OID = '65a1b2c3d4e5f6071829';
const MONGO = [
  `{"_id":{"$oid":"${OID}3a4b"},"title":"Hello","price":{"$numberDecimal":"12.10"},"views":{"$numberLong":"9007199254740993"},"at":{"$date":"2026-01-31T12:00:00Z"},"__v":0}`,
  `{"_id":{"$oid":"${OID}3a4c"},"title":"Last","until":{"$maxKey":1}}`,
  `{"_id":{"$oid":"${OID}3a4d"},"title":"Third","tags":["a","b"],"__v":1}`,
];
const THIRD = { [`${OID}3a4d`]: '{"title":"Third","tags":["a","b"],"v__":1}' };

describe('bundoc import --format', () => {
  it('mongoexport writes lines and arrays, names refused documents, and ends with exit code 1', async () => {
    for (const [project, source] of [
      ['mongo-lines', `${MONGO.join('\r\n')}\r\n`],
      ['mongo-array', `\uFEFF[${MONGO.join(',\n')}]`],
    ] as const) {
      const path = written(`${project}.json`, source);
      const options = ['--format', 'mongoexport', '--collection', 'notes'];
      const { code, stdout, stderr } = await importFile(project, path, ...options);
      expect([code, stdout.split('\n'), stderr]).toEqual([
        1,
        [`2 documents written to ${project}`, '1 document is refused, as named above, and not written', ''],
        'document 2, line 2 is refused: until: JSON has nothing like $maxKey\n',
      ]);
      expect(existsSync(`${path}.import-state`)).toBe(false);
      expect(await contentsOf(project, 'notes')).toEqual({
        [`${OID}3a4b`]:
          '{"title":"Hello","price":12.10,"views":9007199254740993,"at":"2026-01-31T12:00:00.000Z","v__":0}',
        ...THIRD,
      });
    }
  });

  it('couchdb and firestore read standard input, and count with --json', async () => {
    const couch = '{"total_rows":3,"offset":0,"rows":[\r\n'.concat(
      '{"id":"_design/v","key":"_design/v","value":{"rev":"1-a"},"doc":{"_id":"_design/v","_rev":"1-a"}},\r\n',
      '{"id":"a/b","key":"a/b","value":{"rev":"1-a"},"doc":{"_id":"a/b","_rev":"1-a"}},\r\n',
      '{"id":"c","key":"c","value":{"rev":"1-a"},"doc":{"_id":"c","_rev":"1-a","n":1.10}}\r\n]}\n',
    );
    const args = ['import', 'couch', '-', '--format', 'couchdb', '--collection', 'notes', '--json'];
    const first = await bundocProcess(environment, args, couch);
    expect([first.code, JSON.parse(first.stdout), first.stderr]).toEqual([
      1,
      { project: 'couch', documents: 1, lines: 4, refused: 1, skipped: 1 },
      'document 2, line 3 is refused: _id: "a/b" must not hold control characters or "/"\n',
    ]);
    expect(await contentsOf('couch', 'notes')).toEqual({ c: '{"n":1.10}' });

    const name = 'projects/shop/databases/(default)/documents/users/alice/orders/1';
    const fire = `{"documents":[{"name":"${name}","fields":{"total":{"integerValue":"12"}}}]}\n{}\n`;
    const second = await bundocProcess(environment, ['import', 'fire', '-', '--format', 'firestore'], fire);
    expect([second.code, second.stdout, second.stderr]).toEqual([0, '1 document written to fire\n', '']);
    expect(await contentsOf('fire', 'orders')).toEqual({ 'alice:1': '{"total":12}' });
  });

  it('continues an interrupted import, writes nothing twice, and names refused documents again', async () => {
    const many = Array.from({ length: 700 }, (_, n) => `{"n":${n}}`);
    const refused = '{"a":{"$minKey":1}}';
    const path = written('cut.json', `[${[refused, ...many].join(',\n')}`);
    const options = ['--format', 'mongoexport', '--collection', 'notes'];
    const cut = await importFile('cut', path, ...options);
    expect([cut.code, cut.stderr]).toEqual([
      2,
      expect.stringMatching(
        /^document 1, .*\n.*ends too early, in line 701.*600 documents before it are written/,
      ),
    ]);
    const other = await importFile('cut', path, '--collection', 'notes');
    expect([other.code, other.stderr]).toEqual([
      2,
      expect.stringContaining('into collection notes of cut by --format mongoexport, with 601 lines done'),
    ]);
    writeFileSync(path, `${readFileSync(path, 'utf8')}]`);
    const whole = await importFile('cut', path, ...options, '--json');
    expect([whole.code, JSON.parse(whole.stdout)]).toMatchObject([1, { documents: 700, refused: 1 }]);
    const stored = Object.values(await contentsOf('cut', 'notes'));
    expect(stored.sort()).toEqual(many.sort());
  });

  it('names the document that the service refuses', async () => {
    const path = written('long.json', `[{"_id":"a"},{"_id":"b","text":"${'x'.repeat(1_100_000)}"}]`);
    const { code, stderr } = await importFile('long', path, '--format', 'mongoexport', '--collection', 'n');
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/^bundoc: line 1 \("b"\) was refused: .*0 doc/),
    ]);
  });

  it('says what to do when the format does not fit the file, and writes nothing', async () => {
    const couch = '{"total_rows":1,"offset":0,"rows":[\n{"id":"a","doc":{"_id":"a"}}\n]}';
    for (const [source, format, message] of [
      [
        MONGO.join('\n'),
        'ndjson',
        'the _id in line 1 is not a string; of MongoDB, import it with --format mongo',
      ],
      [couch, 'ndjson', 'line 1 is not JSON: .*; --format takes exports of other systems'],
      [MONGO.join('\n'), 'couchdb', 'has no array rows or results, but _id, title, price, views, __v'],
      [MONGO.join('\n'), 'firestore', 'has no array documents, but _id, .*: does --format fit this file'],
      [couch, 'firestore', 'has no array documents, but total_rows, offset, rows'],
      [`[${MONGO.join(',')}]`, 'couchdb', 'the rows have no doc: request them with include_docs=true'],
      ['', 'couchdb', 'the source is empty: did the export fail'],
      [Buffer.from('1f8b0800000000000003', 'hex'), 'ndjson', 'compressed by gzip: run "gunzip -c'],
      [Buffer.from('{"_id":"a","b":1}', 'utf16le'), 'mongoexport', 'seems to be UTF-16LE'],
      [
        Buffer.from('160000000268656c6c6f0006000000776f726c640000', 'hex'),
        'mongoexport',
        'BSON of mongodump',
      ],
    ] as const) {
      const path = written('wrong', Buffer.from(source));
      const { code, stdout, stderr } = await importFile(
        'wrong',
        path,
        '--format',
        format,
        '--collection',
        'n',
      );
      expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)]);
      expect(stderr.trim().split('\n')).toHaveLength(1);
      expect(existsSync(`${path}.import-state`)).toBe(false);
    }
    const unknown = await importFile('wrong', 'any', '--format', 'bson');
    expect([unknown.code, unknown.stderr]).toEqual([
      2,
      expect.stringContaining('Allowed choices are ndjson, mongoexport, couchdb, firestore'),
    ]);
    const nowhere = written('nowhere.json', MONGO[2] ?? '');
    expect((await importFile('wrong', nowhere, '--format', 'mongoexport')).stderr).toContain(
      'line 1 does not say its collection: name one with --collection',
    );
    expect(await client.project('wrong').info()).toBeUndefined();
  });
});
