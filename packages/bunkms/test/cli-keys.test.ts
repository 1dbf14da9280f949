import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { kekStatusSchema } from '@bundoc/shared/contract/kek';
import {
  destroyReceiptSchema,
  exportedKeySchema,
  keyDetailSchema,
  keyInfoSchema,
  keyPageSchema,
} from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import {
  edit,
  environment,
  expectFailure,
  init,
  run,
  tokenFile,
  useCommandLine,
} from './support/command-line.ts';
import { call } from './support/http.ts';
import { startConfigured } from './support/in-process.ts';

useCommandLine();

describe('`bunkms keys`', () => {
  it('rotates, lists and shows keys while a server runs, and prints no key material', async () => {
    await init();
    await using server = await startConfigured(environment);
    const token = readFileSync(tokenFile, 'utf8').trim();
    for (const name of ['a-dek', 'b-dek'])
      await call(server.apiUrl, '/v1/keys', { token, body: { name, type: 'aes-256' } });
    const material = async (query: string) =>
      exportedKeySchema.parse((await call(server.internalUrl, `/v1/export/b-dek${query}`, { token })).json());
    const first = await material('');

    const rotated = await run('key', 'rotate', 'b-dek');
    expect(rotated).toMatchObject({ code: 0, stderr: '' });
    const second = await material('');
    expect([first.version, second.version]).toEqual([1, 2]);
    expect(rotated.stdout).toMatch(new RegExp(`^b-dek  enabled  2  ${second.kcv}  \\S+Z\n$`));
    expect((await material('?version=1')).key_material_b64).toBe(first.key_material_b64);

    const listed = await run('key', 'list', '--json');
    expect(keyPageSchema.parse(JSON.parse(listed.stdout)).keys).toMatchObject([
      { name: 'a-dek', version: 1 },
      { name: 'b-dek', version: 2, kcv: second.kcv },
    ]);
    const list = await run('key', 'list');
    expect(list.stdout).toBe('a-dek\nb-dek\n');
    const shown = await run('key', 'show', 'b-dek', '--json');
    expect(keyDetailSchema.strict().parse(JSON.parse(shown.stdout))).toMatchObject({
      id: first.key_id,
      version: 2,
      versions: [
        { version: 1, kcv: first.kcv },
        { version: 2, kcv: second.kcv },
      ],
    });
    const show = await run('key', 'show', 'b-dek');
    expect(show.stdout).toMatch(/^name: b-dek$/m);
    expect(show.stdout).toMatch(new RegExp(`^version  1  available  ${first.kcv}  \\S+Z$`, 'm'));
    for (const { stdout } of [rotated, listed, list, shown, show])
      for (const { key_material_b64, wrapped_b64 } of [first, second]) {
        expect(stdout).not.toContain(key_material_b64.slice(0, 40));
        expect(stdout).not.toContain(wrapped_b64.slice(0, 40));
      }

    expectFailure(
      await run('key', 'rotate', 'none-dek'),
      3,
      /key_not_found: The key does not exist.*"bunkms key list"/,
    );
    expectFailure(await run('key', 'show', 'none-dek'), 3, /key_not_found/);
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  it('runs a key through its life cycle, and exits with the codes in docs/keys.md', async () => {
    await init();
    const key = async (code: number, ...args: string[]) => {
      const finished = await run('key', ...args, '--json');
      expect([args, finished.code, finished.stderr]).toEqual([args, code, expect.any(String)]);
      return code === 0 ? JSON.parse(finished.stdout) : finished.stderr;
    };
    expect(keyInfoSchema.strict().parse(await key(0, 'create', 'a-dek'))).toMatchObject({
      exportable: true,
      rotate_after_days: null,
    });
    expect(await key(0, 'create', 'b-dek', '--no-exportable', '--rotate-after-days', '90')).toMatchObject({
      exportable: false,
      rotate_after_days: 90,
      next_rotation_at: expect.any(String),
    });
    expect(await key(5, 'create', 'a-dek')).toMatch(/key_exists/);
    expect(await key(0, 'rotate', 'a-dek')).toMatchObject({ version: 2, revision: 2 });
    expect(await key(0, 'disable', 'a-dek')).toMatchObject({ state: 'disabled' });
    expect(await key(5, 'rotate', 'a-dek')).toMatch(/key_disabled/);
    expect(await key(0, 'enable', 'a-dek')).toMatchObject({ state: 'enabled' });
    expectFailure(await run('key', 'set', 'a-dek'), 2, /give --rotate-after-days, --no-exportable, or both$/);
    expect(await key(0, 'set', 'a-dek', '--rotate-after-days', '30')).toMatchObject({
      rotate_after_days: 30,
    });
    expect(await key(0, 'set', 'a-dek', '--rotate-after-days', 'never', '--no-exportable')).toMatchObject({
      rotate_after_days: null,
      exportable: false,
    });
    expect(await key(0, 'delete', 'a-dek', '--pending-days', '10')).toMatchObject({
      state: 'pending_deletion',
    });
    expect(await key(5, 'enable', 'a-dek')).toMatch(/key_pending_deletion/);
    expect(await key(0, 'restore', 'a-dek')).toMatchObject({ state: 'disabled' });
    expect(
      destroyReceiptSchema
        .strict()
        .parse(await key(0, 'destroy-version', 'a-dek', '1', '--confirm', 'a-dek')),
    ).toMatchObject({
      version: 1,
    });
    expect(await key(4, 'destroy-version', 'a-dek', '1', '--confirm', 'a-dek')).toMatch(
      /key_version_destroyed/,
    );
    expect(keyDetailSchema.strict().parse(await key(0, 'show', 'a-dek')).versions).toMatchObject([
      { state: 'destroyed' },
      { state: 'available' },
    ]);
    expect(await key(2, 'destroy', 'a-dek', '--confirm', 'b-dek')).toMatch(/--confirm/);
    const receipt = destroyReceiptSchema
      .strict()
      .parse(await key(0, 'destroy', 'a-dek', '--confirm', 'a-dek'));
    expect(await key(4, 'show', 'a-dek')).toMatch(/key_destroyed/);
    expect(await key(4, 'create', 'a-dek')).toMatch(/key_destroyed/);
    expect((await key(0, 'list')).keys).toMatchObject([{ state: 'destroyed' }, { name: 'b-dek' }]);
    const { seq, hash } = receipt.audit;
    expect((await run('audit', 'verify', '--receipt', `${seq}:${hash}`)).code).toBe(0);

    edit(`UPDATE keys SET exportable = 1 WHERE name = 'b-dek'`);
    expect(await key(6, 'show', 'b-dek')).toMatch(/key_damaged/);
    expect(await key(0, 'list')).toMatchObject({ damaged: ['b-dek'] });
    const verified = await run('audit', 'verify', '--json');
    expect([verified.code, JSON.parse(verified.stdout)]).toMatchObject([
      1,
      { intact: true, damaged_keys: ['b-dek'] },
    ]);
    for (const args of [
      ['create'],
      ['create', 'A'],
      ['create', 'c', '--rotate-after-days', '0'],
      ['set', 'b-dek'],
      ['delete', 'b-dek', '--pending-days', '6'],
      ['destroy', 'b-dek'],
      ['destroy-version', 'b-dek', '0', '--confirm', 'b-dek'],
    ])
      await key(2, ...args);
  });
});

describe('`bunkms kek`', () => {
  it('rotates the KEK while a server runs, from staging to a ring without the former KEK', async () => {
    await init();
    const token = readFileSync(tokenFile, 'utf8').trim();
    const kek = async (...args: string[]) => run('kek', ...args);
    const json = async (...args: string[]) => JSON.parse((await kek(...args, '--json')).stdout);
    await using server = await startConfigured(environment);
    for (const name of ['a-dek', 'b-dek'])
      await call(server.apiUrl, '/v1/keys', { token, body: { name, type: 'aes-256' } });
    const exported = async (name: string) => {
      const { wrapped_b64, key_material_b64 } = exportedKeySchema.parse(
        (await call(server.internalUrl, `/v1/export/${name}`, { token })).json(),
      );
      return { kekId: Buffer.from(wrapped_b64, 'base64').toString('hex', 1, 9), key_material_b64 };
    };
    const made = await exported('a-dek');
    const { current: former } = kekStatusSchema.strict().parse(await json('status'));
    expect(made.kekId).toBe(former);
    expectFailure(await kek('rotate'), 5, /kek_unusable: no KEK is staged/);

    const old = readFileSync(environment.BUNKMS_KEK_FILE, 'utf8');
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n${old}`);
    expect((await json('list')).keks).toMatchObject([
      { id: former, state: 'current', versions: 2, secrets: 2 },
      { state: 'staged', in_ring: true, versions: 0, secrets: 0 },
    ]);
    // The server reloads its ring file.
    await expect.poll(() => server.log).toContain('the KEK ring was reloaded');
    const { current, rotation } = kekStatusSchema.strict().parse(await json('rotate'));
    expect(rotation).toMatchObject({ from: former, total: 2, done: 2, completed_at: expect.any(String) });
    expect(await exported('a-dek')).toEqual({ ...made, kekId: current });
    await call(server.apiUrl, '/v1/keys', { token, body: { name: 'c-dek', type: 'aes-256' } });
    expect((await exported('c-dek')).kekId).toBe(current);
    expect(await json('verify')).toEqual({ current, checked: 3, under_others: 0, damaged: [] });
    expect((await kek('verify')).stdout).toContain('open: 3 versions, 3 with the current KEK');

    await exported('b-dek');
    edit(
      `UPDATE key_versions SET wrapped = zeroblob(69) WHERE key_id = (SELECT id FROM keys WHERE name = 'c-dek')`,
    );
    const faulty = await kek('verify');
    expect(faulty).toMatchObject({ code: 1, stderr: expect.stringContaining('keys do not open: c-dek') });
    expect((await kek('unfetched', former)).stdout).toBe('');
    expect((await kek('retire', '0'.repeat(16))).code).toBe(3);
    expectFailure(await kek('retire', current), 5, /kek_in_use/);
    expect(await json('retire', former)).toMatchObject({ id: former, state: 'retired' });
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n`);
    expect((await kek('status')).stdout).toMatch(
      new RegExp(`^current: ${current}\n${former}  retired  not in the ring`),
    );
    await using later = await startConfigured(environment);
    const answer = await call(later.internalUrl, '/v1/export/a-dek', { token });
    expect(answer.json().key_material_b64).toBe(made.key_material_b64);
  });

  it('lists the reasons against the retirement of a KEK, and can leave the rewrapping to the server', async () => {
    await init();
    const token = readFileSync(tokenFile, 'utf8').trim();
    await using server = await startConfigured(environment);
    await call(server.apiUrl, '/v1/keys', { token, body: { name: 'a-dek', type: 'aes-256' } });
    await call(server.internalUrl, '/v1/export/a-dek', { token });
    appendFileSync(environment.BUNKMS_KEK_FILE, `${'cd'.repeat(32)}\n`);
    await expect.poll(() => server.log).toContain('the KEK ring was reloaded');
    const { rotation } = JSON.parse((await run('kek', 'rotate', '--no-wait', '--json')).stdout);
    await expect
      .poll(async () => JSON.parse((await run('kek', 'status', '--json')).stdout).rotation.completed_at)
      .toBeDefined();
    // The record precedes the log line.
    await expect.poll(() => server.log).toContain('everything is wrapped with the current KEK');
    const refused = await run('kek', 'retire', rotation.from);
    expect(refused).toMatchObject({
      code: 5,
      stdout: 'a-dek\n',
      stderr: expect.stringMatching(/kek_unfetched.*; add --fetch .*--accept-unfetched/),
    });
    expect(JSON.parse((await run('kek', 'unfetched', rotation.from, '--json')).stdout)).toEqual({
      keys: ['a-dek'],
    });
    const retired = await run('kek', 'retire', rotation.from, '--accept-unfetched');
    expect(retired.stdout).toContain('is retired; it may leave the ring. Backups from before need it');
    const again = await run('kek', 'retire', rotation.from);
    expect([again.code, again.stdout]).toEqual([
      0,
      retired.stdout.replace('is retired', 'was retired before'),
    ]);
    for (const args of [['rotate', 'x'], ['retire'], ['retire', 'ABCD'], ['unfetched']])
      expect((await run('kek', ...args)).code).toBe(2);
  });
});
