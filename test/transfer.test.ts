import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { importDocuments } from '@bundoc/bundoc/operations/import-documents';
import { linesOf } from '@bundoc/bundoc/operations/ndjson';
import { Bundoc } from '@bundoc/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand, bundocProcess } from './support/bundoc-command.ts';
import { Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
let client: Bundoc;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
  client = new Bundoc({ url: installation.url, token });
});
afterAll(() => installation[Symbol.asyncDispose]());

const file = (name: string) => join(installation.folder, name);

/** Runs `bundoc` as a process when it uses standard input or output. */
const bundoc = (args: readonly string[], input = '') => {
  const environment = { BUNDOC_URL: installation.url, BUNDOC_TOKEN: token };
  return args.includes('-') ? bundocProcess(environment, args, input) : bundocCommand(environment, args);
};

/** The documents of a collection, without members that differ between projects. */
async function contentsOf(project: string, collection = 'notes'): Promise<Map<string, string>> {
  const contents = new Map<string, string>();
  for await (const { id, text } of client.project(project).collection(collection).list())
    contents.set(id, text.replace(/^.*"_updated":"[^"]*",?/, '{'));
  return contents;
}

describe('bundoc import and export', () => {
  it('report a missing or unreadable file in one sentence', async () => {
    for (const [path, message] of [
      [file('none.ndjson'), 'there is no file at'],
      [installation.folder, 'is a folder'],
    ] as const) {
      const imported = await bundoc(['import', 'first', path]);
      expect([imported.code, imported.stdout, imported.stderr.trim().split('\n')]).toEqual([
        2,
        '',
        [expect.stringContaining(message)],
      ]);
    }
  });

  it('copy every document of a project into another one, byte for byte', async () => {
    const lines = Array.from({ length: 1_234 }, (_, n) => `{ "_id":"d${n}", "n": ${n}.10, "t":"é\\n" }`);
    writeFileSync(file('in.ndjson'), `${lines.join('\n')}\n`);
    const imported = await bundoc(['import', 'first', file('in.ndjson'), '--collection', 'notes', '--json']);
    expect([imported.code, imported.stderr, JSON.parse(imported.stdout)]).toEqual([
      0,
      '',
      { project: 'first', documents: 1_234, lines: 1_234 },
    ]);
    const exported = await bundoc(['export', 'first', file('out.ndjson')]);
    expect([exported.code, exported.stdout]).toEqual([0, '']);
    expect(readFileSync(file('out.ndjson'), 'utf8').trim().split('\n')).toHaveLength(1_234);
    expect([existsSync(file('out.ndjson.partial')), existsSync(file('in.ndjson.import-state'))]).toEqual([
      false,
      false,
    ]);

    const again = await bundoc(['import', 'second', '-'], readFileSync(file('out.ndjson'), 'utf8'));
    expect([again.code, again.stderr]).toEqual([0, '']);
    expect(await contentsOf('second')).toEqual(await contentsOf('first'));
    expect((await contentsOf('first')).get('d7')).toBe('{ "n": 7.10, "t":"é\\n" }');

    const { stdout } = await bundoc(['export', 'second', '-']);
    expect(stdout.split('\n').filter((line) => line !== '')).toHaveLength(1_234);
    const below = join('made', 'of', 'parts', 'out.ndjson');
    expect((await bundoc(['export', 'first', file(below)])).code).toBe(0);
    expect(readFileSync(file(below), 'utf8')).toBe(readFileSync(file('out.ndjson'), 'utf8'));
    const refused = await bundoc(['export', 'first', file('out.ndjson')]);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('already exists')]);
  });

  it('continue where they stopped, and write nothing twice', async () => {
    const good = Array.from({ length: 700 }, (_, n) => `{"n":${n}}`);
    const bad = [...good.slice(0, 650), '{', ...good.slice(650)];
    writeFileSync(file('bad.ndjson'), `${bad.join('\n')}\n`);
    const stopped = await bundoc(['import', 'resumed', file('bad.ndjson'), '--collection', 'notes']);
    expect([stopped.code, stopped.stderr]).toEqual([
      2,
      expect.stringMatching(/line 651 is not JSON: column 2: .*; 600 documents before it are written/),
    ]);
    expect(existsSync(file('bad.ndjson.import-state'))).toBe(true);
    // The line is corrected in place, after the imported lines.
    writeFileSync(file('bad.ndjson'), `${good.join('\n')}\n`);
    const resumed = await bundoc([
      'import',
      'resumed',
      file('bad.ndjson'),
      '--collection',
      'notes',
      '--json',
    ]);
    expect([resumed.code, JSON.parse(resumed.stdout)]).toMatchObject([0, { documents: 700 }]);
    const numbers = [...(await contentsOf('resumed')).values()].sort();
    expect(numbers).toEqual(good.sort());
  });

  it('keep the order of the lines of one document, and apply deletions', async () => {
    const lines = [
      ...Array.from({ length: 50 }, (_, n) => `{"_id":"same","n":${n}}`),
      '{"_id":"gone","n":1}',
      '{"_id":"gone","_collection":"notes","_deleted":true}',
      '{"_id":"never","_collection":"notes","_deleted":true}',
      '{"_id":"last","n":1}',
    ];
    const { code, stderr } = await bundoc(
      ['import', 'order', '-', '--collection', 'notes'],
      lines.join('\n'),
    );
    expect([code, stderr]).toEqual([0, '']);
    expect(await contentsOf('order')).toEqual(
      new Map([
        ['same', '{"n":49}'],
        ['last', '{"n":1}'],
      ]),
    );
    await client.project('order').collection('notes').delete('last');
    const exported = await bundoc(['export', 'order', '-', '--deletions']);
    expect(exported.stdout).toContain('{"_id":"last","_collection":"notes","_deleted":true}');
  });

  const START = { end: 0, lines: 0, documents: 0 };
  /** Imports lines after those that are done. @returns the progress that was saved. */
  async function importLines(project: string, run: string, lines: readonly string[], done = START) {
    const text = Buffer.from(lines.map((line) => `${line}\n`).join(''));
    async function* source() {
      yield text.subarray(done.end);
    }
    let saved = done;
    await importDocuments(client, linesOf(source(), { number: done.lines, end: done.end }), done, {
      project,
      run,
      collection: 'notes',
      batchesAtOnce: 4,
      signal: new AbortController().signal,
      onDone: async () => undefined,
      save: async (progress) => {
        saved = progress;
      },
    });
    return saved;
  }

  it('repeat the same batches of one import with the same idempotency keys', async () => {
    const lines = Array.from({ length: 450 }, (_, n) => `{"n":${n}}`);
    for (let n = 0; n < 2; n++) await importLines('twice', 'one', lines);
    expect((await contentsOf('twice')).size).toBe(450);
  });

  it('resume from their last save without undoing lines after a deletion', async () => {
    const lines = [
      '{"_id":"x","n":1}',
      '{"_id":"x","_collection":"notes","_deleted":true}',
      '{"_id":"never","_collection":"notes","_deleted":true}',
      '{"_id":"x","n":2}',
      '{"_id":"never","n":3}',
    ];
    const saved = await importLines('resume', 'one', lines);
    expect(saved.lines).toBe(3);
    // Everything was written, but the run was killed before it could save that.
    await importLines('resume', 'one', lines, saved);
    expect(await contentsOf('resume')).toEqual(
      new Map([
        ['x', '{"n":2}'],
        ['never', '{"n":3}'],
      ]),
    );
  });

  it('take effect again when a file is imported again', async () => {
    const path = file('again.ndjson');
    writeFileSync(path, '{"_id":"x","n":1}\n{"_id":"x","_deleted":true}\n{"_id":"x","n":2}\n');
    const notes = client.project('again').collection('notes');
    for (let n = 0; n < 2; n++) {
      const { code, stderr } = await bundoc(['import', 'again', path, '--collection', 'notes']);
      expect([code, stderr]).toEqual([0, '']);
      expect(await contentsOf('again')).toEqual(new Map([['x', '{"n":2}']]));
      await notes.put('x', { n: 3 });
    }
    expect(existsSync(`${path}.import-state`)).toBe(false);
  });

  describe('an export that was interrupted', () => {
    const path = () => file('stopped.ndjson');
    /** Leaves what a run leaves that was killed after its first page. */
    async function interrupt(partial: (page: string) => string) {
      const project = client.project('stopped');
      for (const id of ['a', 'b', 'c']) await project.collection('notes').put(id, { id });
      const { changes, since } = await project.changesPage({ documents: true, pageSize: 2 });
      const page = changes.map(({ document }) => `${document?.text}\n`).join('');
      writeFileSync(`${path()}.partial`, partial(page));
      const done = { since, documents: 2, deletions: 0, unreadable: ['notes/damaged'] };
      const about = { project: 'stopped', collection: null, from: null, deletions: false };
      const state = { format: 1, ...about, bytes: Buffer.byteLength(page), done };
      writeFileSync(`${path()}.export-state`, JSON.stringify(state));
    }

    it('is continued, and still reports documents that its first run could not read', async () => {
      await interrupt((page) => `${page}{"half":`);
      const { code, stderr } = await bundoc(['export', 'stopped', path()]);
      expect([code, stderr]).toEqual([
        1,
        expect.stringMatching(/^3 documents;.*\ndoes not open: notes\/damaged\n$/),
      ]);
      const ids = readFileSync(path(), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).id);
      expect(ids).toEqual(['a', 'b', 'c']);
      expect(existsSync(`${path()}.export-state`)).toBe(false);
      rmSync(path());
    });

    it('is refused when its output was cut, and starts over when that was removed', async () => {
      await interrupt((page) => page.slice(1));
      const refused = await bundoc(['export', 'stopped', path()]);
      expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('was changed: remove it')]);
      rmSync(`${path()}.partial`);
      expect((await bundoc(['export', 'stopped', path()])).code).toBe(0);
      expect(readFileSync(path(), 'utf8').trim().split('\n')).toHaveLength(3);
    });
  });

  it('name the line that the service refuses, and write nothing from its batch', async () => {
    const lines = ['{"n":1}', '', '{"_private":1}'];
    const { code, stderr } = await bundoc(
      ['import', 'refused', '-', '--collection', 'notes'],
      lines.join('\n'),
    );
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/: line 3 was refused: invalid_document: .*acceptable: top-level names/),
    ]);
  });
});
