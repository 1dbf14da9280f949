import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ExportedKey, exportedKeySchema } from '@bundoc/shared/contract/keys';
import { LONG } from '@bundoc/shared/testing/long';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { isSealedRing } from '../src/vault/sealed-ring.ts';
import { bunkms } from './support/command.ts';
import { call } from './support/http.ts';
import { type ConfiguredService, startConfigured } from './support/in-process.ts';
import { bytesOf } from './support/kek-rings.ts';
import { writeProject } from './support/recovery.ts';
import { TransitServer } from './support/transit-server.ts';

const NAMES = ['a-dek', 'b-dek'];
const SERVICE = ['token', 'issue', '--typ', 'service', '--sub', 'x', '--keys', '*', '--scope'];

describe('two nodes of BunKMS on one database, whose ring is sealed,', needs('postgresql'), () => {
  let server: PostgresServer;
  let bao: TransitServer;
  let folder: string;
  let url: string;
  let token: string;
  let databases = 0;

  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  const at = (...names: string[]) => join(folder, ...names);
  /** Each node has files of its own, as on machines of their own. */
  const environmentOf = (node: string, storage = url) => ({
    BUNKMS_STORAGE: storage,
    BUNKMS_DATA_DIR: at(node, 'data'),
    BUNKMS_KEK_FILE: at(node, 'kek'),
    BUNKMS_OUTSIDE_KEYS_FILE: at(node, 'outside.json'),
    BUNKMS_EXPORTS_PER_TOKEN: '0',
  });
  const writeEntries = (node: string, keys: object) =>
    writeFileSync(at(node, 'outside.json'), JSON.stringify({ keys }));
  const entry = () => ({
    kind: 'transit',
    url: bao.url,
    key: 'bunkms',
    token_file: at('bao.token'),
  });
  const start = (node: string) => startConfigured(environmentOf(node));
  const json = async (node: string, ...args: string[]) => {
    const { code, stdout, stderr } = await bunkms(environmentOf(node), ...args, '--json');
    expect([args, code, stderr]).toEqual([args, 0, '']);
    return JSON.parse(stdout);
  };
  const exported = async (node: ConfiguredService, name: string, version?: number): Promise<ExportedKey> => {
    const query = version === undefined ? '' : `?version=${version}`;
    const answer = await call(node.internalUrl, `/v1/export/${name}${query}`, { token });
    expect(answer.status, answer.text).toBe(200);
    return exportedKeySchema.parse(answer.json());
  };
  const materialOf = async (node: ConfiguredService) =>
    await Promise.all(NAMES.map(async (name) => (await exported(node, name)).key_material_b64));
  /** Runs a command at the first node that writes the ring, and brings it to the other one meanwhile. */
  const distributing = async (...args: string[]) => {
    const before = readFileSync(at('one', 'kek'));
    const running = startInBackground(json('one', ...args));
    await expect.poll(() => readFileSync(at('one', 'kek')).equals(before)).toBe(false);
    copyFileSync(at('one', 'kek'), at('other', 'kek'));
    return await running;
  };

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-sealed-nodes-'));
    bao = await TransitServer.start();
    bao.keys.set('bunkms', randomBytes(32));
    writeFileSync(at('bao.token'), bao.newToken());
    url = (await server.createDatabase(`sealed_${databases++}`)).url;
    for (const node of ['one', 'other', 'restored']) {
      mkdirSync(at(node));
      writeEntries(node, { bao: entry() });
    }
    expect((await bunkms(environmentOf('one'), 'init', '--create-kek')).code).toBe(0);
    copyFileSync(at('one', 'kek'), at('other', 'kek'));
    for (const name of NAMES) await json('one', 'key', 'create', name);
    const issued = await bunkms(environmentOf('one'), ...SERVICE, 'kms:export_key kms:rotate_key');
    token = issued.stdout.trim();
  });
  afterEach(async () => {
    await bao[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  it('rotate and retire KEKs as with a plain ring, and the former file then opens nothing of the store', async () => {
    await using one = await start('one');
    await using other = await start('other');
    const materials = await materialOf(one);
    const former = readFileSync(at('one', 'kek'));
    const { current, former: ids } = await distributing('seal', 'migrate', '--slot', 'bao');
    expect(isSealedRing(readFileSync(at('other', 'kek')))).toBe(true);
    for (const node of [one, other])
      for (const name of NAMES) expect(kekIdOf(bytesOf(await exported(node, name)))).toBe(current);
    expect(await materialOf(other)).toEqual(materials);
    // Until it is retired, the former file opens what it wraps, and doctor says so.
    const doctor = () => bunkms(environmentOf('one'), 'doctor', '--json');
    expect((await doctor()).stdout).toContain('former ring files may open what these KEKs wrap');
    expect(await json('one', 'kek', 'retire', ids[0])).toMatchObject({ state: 'retired' });
    expect((await doctor()).stdout).not.toContain('former ring files');
    expect((await json('one', 'kek', 'list')).keks).toContainEqual(
      expect.objectContaining({ id: ids[0], state: 'retired', versions: 0, secrets: 0 }),
    );
    writeFileSync(at('restored', 'kek'), former, { mode: 0o600 });
    const opened = await bunkms(environmentOf('restored'), 'kek', 'status');
    expect(opened.code).not.toBe(0);
    expect(opened.stderr).toContain(current);

    // A further one, by hand.
    const { id } = await distributing('kek', 'add');
    await expect.poll(async () => (await bunkms(environmentOf('other'), 'kek', 'rotate', id)).code).toBe(0);
    for (const node of [one, other])
      for (const name of NAMES) expect(kekIdOf(bytesOf(await exported(node, name)))).toBe(id);
    await json('one', 'kek', 'retire', current);
    await distributing('kek', 'remove', current);
    expect(await json('other', 'kek', 'verify')).toMatchObject({ under_others: 0, damaged: [] });
    expect(await materialOf(other)).toEqual(materials);
  });

  it('are backed up, restored and recovered as with a plain ring', async () => {
    const all: ExportedKey[] = [];
    {
      await using one = await start('one');
      await using _other = await start('other');
      await distributing('seal', 'migrate', '--slot', 'bao');
      for (const name of NAMES) all.push(await exported(one, name));
      await json('other', 'backup', at('backup'));
    }
    expect(await json('one', 'backup', 'verify', at('backup'))).toMatchObject({ ok: true, findings: [] });
    writeProject(at('bundoc'), 'a', all.slice(0, 1));

    // Another database and machine, with the sealed ring and the entry alone.
    copyFileSync(at('one', 'kek'), at('restored', 'kek'));
    url = (await server.createDatabase(`sealed_${databases++}`)).url;
    const restored = await bunkms(environmentOf('restored'), 'restore', at('backup'), '--json');
    expect([restored.code, restored.stderr]).toEqual([0, '']);
    for (const name of NAMES) await json('restored', 'key', 'enable', name);
    token = (await bunkms(environmentOf('restored'), ...SERVICE, 'kms:export_key')).stdout.trim();
    {
      await using service = await start('restored');
      expect(await materialOf(service)).toEqual(all.map((key) => key.key_material_b64));
    }

    // The store is lost with its backups: Bundoc's copies open by the sealed ring.
    url = (await server.createDatabase(`sealed_${databases++}`)).url;
    expect((await bunkms(environmentOf('restored'), 'init')).code).toBe(0);
    expect(await json('restored', 'recover', '--from', at('bundoc'))).toMatchObject({
      projects: [{ key: 'a-dek', outcome: 'recovered', versions: [1] }],
    });
    await json('restored', 'key', 'enable', 'a-dek');
    token = (await bunkms(environmentOf('restored'), ...SERVICE, 'kms:export_key')).stdout.trim();
    await using service = await start('restored');
    expect((await exported(service, 'a-dek')).key_material_b64).toBe(all[0]?.key_material_b64);
  });

  it('do not rotate while one of them lacks the entry of the slot, and do once it has it, without a restart', async () => {
    await using one = await start('one');
    await using other = await start('other');
    writeEntries('other', {});
    const materials = await materialOf(one);
    const { current: before } = await json('one', 'kek', 'status');
    const migrating = startInBackground(distributing('seal', 'migrate', '--slot', 'bao'));
    await expect.poll(() => other.log).toContain('no slot opens the new KEK ring');
    expect(other.log).toContain('bao is offline');
    // It serves, by the ring that it has.
    expect(await materialOf(other)).toEqual(materials);
    expect((await json('one', 'kek', 'status')).current).toBe(before);
    writeEntries('other', { bao: entry() });
    const { current } = await migrating;
    expect(current).not.toBe(before);
    expect(kekIdOf(bytesOf(await exported(other, 'a-dek')))).toBe(current);
    expect(await materialOf(other)).toEqual(materials);
  });

  it('name the step that is left when one of them never gets the ring, and lose nothing', async ({
    skip,
  }) => {
    skip(!LONG, 'the command waits for 20 s');
    await using one = await start('one');
    await using other = await start('other');
    const materials = await materialOf(one);
    const { code, stderr } = await bunkms(environmentOf('one'), 'seal', 'migrate', '--slot', 'bao');
    expect(code).toBe(5);
    expect(stderr).toContain('a running service lacks the KEK');
    for (const node of [one, other]) expect(await materialOf(node)).toEqual(materials);
    copyFileSync(at('one', 'kek'), at('other', 'kek'));
    const { former } = await json('one', 'seal', 'migrate', '--slot', 'bao');
    expect(former).toHaveLength(1);
    expect(await materialOf(other)).toEqual(materials);
  });
});
