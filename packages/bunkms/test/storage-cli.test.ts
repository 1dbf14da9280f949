import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { runNode } from '@bundoc/shared/testing/node-process';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import { writeProject } from './support/recovery.ts';
import { setKey, TestStorageNode } from './support/storages.ts';

const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));

let dataDir: string;
let bundoc: string;
let kms: TestKms;
let keys: KeyCalls;
let s: TestStorageNode;
let t: TestStorageNode;
let environment: Record<string, string>;
beforeEach(async () => {
  dataDir = newDataDir();
  bundoc = mkdtempSync(join(tmpdir(), 'bunkms-storage-cli-'));
  const kek = newKek();
  kms = await startKms({ dataDir, kek });
  keys = await KeyCalls.of(kms);
  s = await TestStorageNode.of(kms);
  t = await TestStorageNode.of(kms);
  environment = { BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK: kek };
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  for (const folder of [dataDir, bundoc]) rmSync(folder, { recursive: true });
});

const run = (...args: string[]) => bunkms(environment, ...args);
/** Until when, and when not to wait. */
const LEASE_LIVE =
  /^bunkms: lease_live: a copy of a key may be in use until 2\d{3}-[0-9T:.-]+Z; wait until then, or add --force if the machine that used the key is gone or stopped for certain: otherwise two storages use one key at once\n$/;
const holderOf = async (name: string) => (await kms.store.findKey(name, 'current'))?.record?.holder;

/** Creates a project with content in the folder, and a key with this holder. */
async function makeProject(project: string, holder: string | null): Promise<void> {
  await keys.create(`${project}-dek`);
  writeProject(bundoc, project, [exportedKeySchema.parse((await keys.export(`${project}-dek`)).json())]);
  await setKey(kms, `${project}-dek`, { holder });
}

/** Runs the command as a process that reads names from standard input. */
const withInput = (input: string, ...args: string[]) =>
  runNode([MAIN, ...args], { ...environment, NODE_ENV: 'test', NODE_NO_WARNINGS: '1' }, input);

describe('bunkms key', () => {
  it('claims a key without a holder permanently, but no key of another storage', async () => {
    await keys.create('a-dek');
    for (let time = 0; time < 2; time++) {
      const claimed = await run('key', 'claim', 'a-dek', '--storage', s.id, '--json');
      expect(claimed.code, claimed.stderr).toBe(0);
      expect(JSON.parse(claimed.stdout)).toMatchObject({ name: 'a-dek', holder: s.id });
    }
    const refused = await run('key', 'claim', 'a-dek', '--storage', t.id);
    expect(refused).toMatchObject({ code: 5, stderr: expect.stringContaining('key_held_elsewhere') });
    expect((await run('key', 'claim', 'none-dek', '--storage', t.id)).code).toBe(3);
    expect((await run('key', 'claim', 'a-dek', '--storage', 'somewhere')).code).toBe(2);
  });

  it('takes over a key once nobody else may use it, or by force, and says when force is right', async () => {
    await s.create('a-dek');
    await s.export('a-dek');
    const refused = await run('key', 'take-over', 'a-dek', '--storage', t.id);
    expect(refused.code).toBe(5);
    expect(refused.stderr).toMatch(LEASE_LIVE);
    expect(await holderOf('a-dek')).toBe(s.id);
    const taken = await run('key', 'take-over', 'a-dek', '--storage', t.id, '--force');
    expect(taken.code, taken.stderr).toBe(0);
    expect(taken.stdout).toContain(t.id);
    expect(await holderOf('a-dek')).toBe(t.id);
  });
});

describe('bunkms storage', () => {
  it('shows a storage, and takes it over', async () => {
    const shown = await run('storage', 'show', s.id);
    expect(shown.stdout).toContain(`generation: ${s.generation}`);
    expect(shown.stdout).toMatch(/^taken_over: never$/m);
    const generation = randomUUID();
    const taken = await run('storage', 'take-over', s.id, '--generation', generation, '--json');
    expect(JSON.parse(taken.stdout)).toMatchObject({
      id: s.id,
      generation,
      taken_over_ms: expect.any(Number),
    });
    await s.advance([generation]);
    await s.create('a-dek');
    await s.export('a-dek');
    const refused = await run('storage', 'take-over', s.id);
    expect(refused).toMatchObject({ code: 5, stderr: expect.stringMatching(LEASE_LIVE) });
    const forced = await run('storage', 'take-over', s.id, '--force');
    expect(forced.stdout).toMatch(/^taken_over: 20\d\d-\S+Z$/m);
    expect((await s.export('a-dek')).json()).toMatchObject({ code: 'storage_superseded' });
    expect((await run('storage', 'show', randomUUID())).code).toBe(3);
  });

  describe('list', () => {
    let { isTTY } = process.stdout;
    beforeEach(() => {
      isTTY = process.stdout.isTTY;
    });
    afterEach(() => {
      process.stdout.isTTY = isTTY;
    });
    const list = async () => {
      const { code, stdout, stderr } = await run('storage', 'list', '--json');
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      return JSON.parse(stdout);
    };
    const seen = async (action: string) =>
      (await kms.records()).findLast((record) => record.action === action)?.time;

    it('has every storage with its generation, its keys and when it was last seen', async () => {
      const typo = randomUUID();
      await s.create('a-dek');
      await s.create('b-dek');
      await keys.create('typo-dek');
      await run('key', 'take-over', 'typo-dek', '--storage', typo);
      await s.create('gone-dek');
      await keys.shred('gone-dek');
      await s.create('damaged-dek');
      edit(kms, `UPDATE keys SET revision = 9 WHERE name = 'damaged-dek'`);
      const advanced = (await kms.records()).filter(({ action }) => action === 'storage.advance');
      expect(await list()).toEqual({
        storages: [
          { id: s.id, generation: s.generation, keys: 2, last_seen: advanced[0]?.time },
          { id: t.id, generation: t.generation, keys: 0, last_seen: advanced[1]?.time },
          { id: typo, keys: 1 },
        ].sort((one, other) => (one.id < other.id ? -1 : 1)),
        damaged: ['damaged-dek'],
      });
      await s.export('a-dek');
      await run('storage', 'take-over', t.id);
      const { storages } = await list();
      expect(storages).toEqual(
        expect.arrayContaining([
          { id: s.id, generation: s.generation, keys: 2, last_seen: await seen('key.export') },
          { id: t.id, keys: 0 },
        ]),
      );
    });

    it('is a table on a terminal, and elsewhere one id a line', async () => {
      await s.create('a-dek');
      const ids = [s.id, t.id].sort();
      expect(await run('storage', 'list')).toEqual({ code: 0, stdout: `${ids.join('\n')}\n`, stderr: '' });
      process.stdout.isTTY = true;
      const [head, ...rows] = (await run('storage', 'list')).stdout.trimEnd().split('\n');
      expect(head).toMatch(/^storage {31}generation {28}keys {2}last seen$/);
      const keysOf = Object.fromEntries(
        rows.map((row) => row.split(/ +/)).map(([id, , count]) => [id, count]),
      );
      expect(keysOf).toEqual({ [s.id]: '1', [t.id]: '0' });
    });

    it('shows a storage whose record was changed as damaged, and no planted text', async () => {
      const planted = `UPDATE audit SET detail = replace(detail, '${t.id}', '\\u001b[2Jplanted') WHERE detail LIKE '%${t.id}%'`;
      edit(kms, planted);
      edit(
        kms,
        `UPDATE audit SET detail = replace(detail, '${s.generation}', '${randomUUID()}') WHERE detail LIKE '%${s.generation}%'`,
      );
      expect(await list()).toEqual({ storages: [{ id: s.id, keys: 0, damaged: true }] });
    });
  });

  it('claims the key of every project with content in a folder, lists those held elsewhere, and can be continued', async () => {
    await makeProject('free', null);
    await makeProject('unknown', 'unknown');
    await makeProject('mine', s.id);
    await makeProject('theirs', t.id);
    await makeProject('replaced', null);
    await keys.create('other-dek');
    const stranger = exportedKeySchema.parse((await keys.export('other-dek')).json());
    writeProject(bundoc, 'replaced', [stranger]);
    await makeProject('gone', s.id);
    await keys.shred('gone-dek');
    mkdirSync(join(bundoc, 'projects', 'deleted'));
    writeFileSync(join(bundoc, 'projects', 'deleted', 'deleted.json'), '{}');
    mkdirSync(join(bundoc, 'projects', 'torn', 'docs'), { recursive: true });
    await makeProject('moving', null);
    writeFileSync(join(bundoc, 'projects', 'moving', 'move.mark'), 'anything');
    writeFileSync(join(bundoc, 'storage.json'), JSON.stringify({ format: 1, id: s.id }));

    const first = await run('storage', 'claim-all', s.id, '--from', bundoc, '--json');
    expect(first.code).toBe(1);
    expect(first.stderr).toContain('other storages hold the keys of these projects: theirs;');
    expect(first.stderr).toContain(
      'have the marker of a move; claim each key for the storage that has it: moving;',
    );
    expect(first.stderr).toContain('are not claimed: replaced, torn');
    const outcomes = (stdout: string) =>
      Object.fromEntries(
        JSON.parse(stdout).projects.map(({ project, outcome }: Record<string, string>) => [project, outcome]),
      );
    const others = {
      theirs: 'elsewhere',
      replaced: 'another-key',
      gone: 'destroyed',
      torn: 'unreadable',
      moving: 'moving',
    };
    expect(outcomes(first.stdout)).toEqual({ free: 'claimed', unknown: 'claimed', mine: 'held', ...others });
    const second = await run('storage', 'claim-all', s.id, '--from', bundoc, '--json');
    expect(outcomes(second.stdout)).toEqual({ free: 'held', unknown: 'held', mine: 'held', ...others });
    for (const name of ['free-dek', 'unknown-dek', 'mine-dek']) expect(await holderOf(name)).toBe(s.id);
    expect(await holderOf('theirs-dek')).toBe(t.id);
    for (const name of ['replaced-dek', 'moving-dek']) expect(await holderOf(name)).toBeNull();
    const claims = (await kms.records()).filter(({ action }) => action === 'key.claim');
    expect(claims.map(({ actor, key }) => [actor, key])).toEqual([
      ['cli', 'free-dek'],
      ['cli', 'unknown-dek'],
    ]);
  });

  it('claims nothing for a folder of another storage, or one that is not a data folder', async () => {
    await makeProject('free', null);
    writeFileSync(join(bundoc, 'storage.json'), JSON.stringify({ format: 1, id: t.id }));
    const refused = await run('storage', 'claim-all', s.id, '--from', bundoc);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(`is the storage ${t.id}`) });
    expect((await run('storage', 'claim-all', s.id, '--from', join(bundoc, 'none'))).code).toBe(2);
    expect(await holderOf('free-dek')).toBeNull();
  });

  it('claims the keys of the projects from standard input', async () => {
    await keys.create('a-dek');
    await keys.create('b-dek');
    const claimed = await withInput('a\r\n\n b \n', 'storage', 'claim-all', s.id);
    expect(claimed).toEqual({
      code: 0,
      stdout: 'a  a-dek  claimed\nb  b-dek  claimed\n',
      stderr: '',
    });
    const missing = await withInput('a\nc\n', 'storage', 'claim-all', s.id);
    expect(missing).toMatchObject({
      code: 1,
      stdout: 'a  a-dek  held\nc  c-dek  missing\n',
      stderr: expect.stringContaining('not claimed: c'),
    });
    expect((await withInput('../a\n', 'storage', 'claim-all', s.id)).code).toBe(2);
  });

  it.each(['', '\n \n'])('refuses standard input without a name: %j', async (input) => {
    expect(await withInput(input, 'storage', 'claim-all', s.id, '--json')).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('standard input names no project'),
    });
  });

  describe('with the script of the page on recovery', needs('postgresql'), () => {
    let server: PostgresServer;
    beforeAll(async () => {
      server = await PostgresServer.start();
    });
    afterAll(() => server[Symbol.asyncDispose]());

    it('claims the keys of the projects of a database, except those with a marker, which it lists', async () => {
      const { url } = await server.createDatabase('bundoc');
      await server.sql('CREATE SCHEMA bundoc AUTHORIZATION bundoc', 'bundoc');
      const schema = readFileSync(new URL('../../bundoc/schema.sql', import.meta.url), 'utf8');
      await server.sql(`SET ROLE bundoc;\n${schema}`, 'bundoc');
      const rows = ["('free', '{}', NULL)", "('moving', '{}', 'a mark')", "('deleted', NULL, 'a mark')"];
      await server.sql(
        `INSERT INTO bundoc.projects (project, file, marker) VALUES ${rows.join(', ')}`,
        'bundoc',
      );
      for (const project of ['free', 'moving', 'deleted']) await keys.create(`${project}-dek`);
      const page = new URL('../../../docs/operations/recovery.md', import.meta.url);
      const lines = readFileSync(page, 'utf8').matchAll(/^psql .*$/gm);
      const script = [...lines].map(([line]) => line.replace('<id>', s.id)).join('\n');
      const { hostname, port, username, password, pathname } = new URL(url);
      const { stdout } = await promisify(execFile)(
        'bash',
        [
          '-c',
          `set -euo pipefail\nbunkms() { "$NODE" --conditions=@bundoc/source "$MAIN" "$@"; }\n${script}`,
        ],
        {
          env: {
            ...environment,
            NODE: process.execPath,
            MAIN,
            NODE_ENV: 'test',
            NODE_NO_WARNINGS: '1',
            PATH: process.env['PATH'],
            NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'],
            PGHOST: hostname,
            PGPORT: port,
            PGUSER: username,
            PGPASSWORD: decodeURIComponent(password),
            PGDATABASE: pathname.slice(1),
          },
        },
      );
      expect(stdout.trim().split('\n').sort()).toEqual(['deleted', 'free  free-dek  claimed', 'moving']);
      expect(await holderOf('free-dek')).toBe(s.id);
      for (const name of ['moving-dek', 'deleted-dek']) expect(await holderOf(name)).toBeNull();
    });
  });
});
