import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from './support/compiler.ts';
import { call, Installation } from './support/installation.ts';

const root = join(import.meta.dirname, '..');
const page = readFileSync(join(root, 'docs/how-to/notes-service.md'), 'utf8');
const [, indented = ''] = /cat > notes\.mts <<'END'\n([\s\S]*?)^ *END$/m.exec(page) ?? [];
const program = indented.replaceAll(/^ {3}/gm, '');

/** A folder of the program, which finds its packages as after `npm install`. */
const folder = mkdtempSync(join(tmpdir(), 'bundoc-notes-'));
symlinkSync(join(root, 'packages/bundoc/node_modules'), join(folder, 'node_modules'));
writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
writeFileSync(join(folder, 'notes.mts'), program);
afterAll(() => rmSync(folder, { recursive: true }));

describe('the notes service of docs/how-to/notes-service.md', () => {
  let installation: Installation;
  let service: ReturnType<typeof spawn>;
  let url = '';
  beforeAll(async () => {
    installation = await Installation.start();
    const token = await installation.client(['notes-app'], ['docs:read', 'docs:write', 'docs:admin']);
    service = spawn(process.execPath, ['--conditions=@bundoc/source', 'notes.mts'], {
      cwd: folder,
      env: {
        ...process.env,
        NOTES_URL: 'http://127.0.0.1:0',
        BUNDOC_URL: installation.url,
        BUNDOC_TOKEN: token,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const printed = once(service.stdout as NodeJS.ReadableStream, 'data');
    const ended = once(service, 'exit').then(() => ['the service has ended']);
    [url] = (await Promise.race([printed, ended])).map(String).map((text) => text.trim()) as [string];
    expect(url).toMatch(/^http:/);
  });
  afterAll(async () => {
    service.kill();
    await installation[Symbol.asyncDispose]();
  });
  const ask = async (method: string, path: string, body?: object, headers: Record<string, string> = {}) => {
    const type = body === undefined ? {} : { 'content-type': 'application/json' };
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await call(url, path, { method, headers: { ...type, ...headers }, ...sent });
    return { status: answer.status, text: answer.text, json: answer.text === '' ? {} : answer.json() };
  };
  const note = { title: 'Straße nach Rom', author: 'ada', tags: ['draft', 'travel'], hours: 0.1 };

  it('has at most 150 lines, and compiles', () => {
    expect(program.trimEnd().split('\n').length).toBeLessThanOrEqual(150);
    compile(folder, { customConditions: ['@bundoc/source'] });
  });

  it('creates a note once for one key, finds it by a part of its title, and counts every star', async () => {
    const key = { 'idempotency-key': 'one' };
    const made = await ask('POST', '/notes', note, key);
    expect(made.status).toBe(201);
    expect(await ask('POST', '/notes', note, key)).toEqual(made);
    const path = `/notes/${String(made.json['id'])}`;
    const readers = Array.from({ length: 30 }, (_, n) => ({ reader: `reader ${n}` }));
    await Promise.all(readers.map((reader) => ask('POST', `${path}/star`, reader)));
    const found = await ask('GET', '/notes?text=STRASSE&tag=travel');
    expect(found.json['notes']).toMatchObject([{ title: note.title, stars: 30 }]);
    const read = (await ask('GET', path)).json;
    expect([read['readers'], read['read']]).toEqual([expect.anything(), expect.stringContaining('T')]);
    expect(read['readers']).toHaveLength(10);
    expect((await ask('GET', '/notes?text=Paris')).json).toEqual({ notes: [] });
  });

  it('replaces a note at its revision alone, and renames a tag beside other changes', async () => {
    const { json: made } = await ask('POST', '/notes', note);
    const path = `/notes/${String(made['id'])}`;
    const late = await ask('PUT', path, note, { 'if-match': '"0-0"' });
    expect([late.status, late.json]).toEqual([412, expect.objectContaining({ currentRev: made['rev'] })]);
    expect((await ask('PUT', path, note, { 'if-match': String(made['rev']) })).status).toBe(200);
    const renamed = [
      ask('POST', `${path}/rename-tag`, { from: 'draft', to: 'done' }),
      ask('POST', `${path}/star`, { reader: 'bob' }),
      ask('POST', `${path}/rename-tag`, { from: 'travel', to: 'done' }),
    ];
    expect((await Promise.all(renamed)).map(({ status }) => status)).toEqual([200, 200, 200]);
    expect((await ask('GET', path)).json).toMatchObject({ tags: ['done'], stars: 1 });
    expect((await ask('DELETE', path)).status).toBe(204);
    expect((await ask('GET', path)).status).toBe(404);
  });

  it('computes exact figures of the authors with enough notes', async () => {
    for (let n = 0; n < 27; n++) await ask('POST', '/notes', { ...note, author: 'cy', notebook: `${n % 3}` });
    expect((await ask('GET', '/figures?least=20')).text).toBe(
      '[{"group":{"author":"cy"},"figures":{"notes":27,"hours":2.7,"mean":0.1,"usualStars":0,"notebooks":["0","1","2"]}}]',
    );
  });

  it('archives a notebook once for one key, after a preview, and deletes what is archived', async () => {
    const preview = await ask('POST', '/archive', { notebook: '1', dryRun: true });
    expect(preview.json).toMatchObject({ matched: 9, written: 9 });
    const archive = () => ask('POST', '/archive', { notebook: '1' }, { 'idempotency-key': 'archive' });
    const archived = await archive();
    expect(archived.json).toMatchObject({ matched: 9, written: 9 });
    expect(await archive()).toEqual(archived);
    expect((await ask('DELETE', '/archive')).json).toMatchObject({ written: 9 });
    const { deleted } = (await ask('DELETE', '/everything')).json;
    expect(deleted).toBe(19);
  });

  it('refuses with a clear answer what is no note, and says no more than that of its own faults', async () => {
    const wrong = await ask('POST', '/notes', { ...note, stars: -1, star: 1 });
    expect([wrong.status, wrong.json]).toEqual([400, expect.objectContaining({ code: 'invalid_request' })]);
    const unknown = await ask('POST', '/notes/none/star', { reader: 'bob' });
    expect([unknown.status, unknown.json]).toEqual([
      404,
      expect.objectContaining({ code: 'document_not_found' }),
    ]);
  });
});
