import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ExportedKey, exportedKeySchema } from '@bundoc/shared/contract/keys';
import type { Finished } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { call } from './support/http.ts';
import { startConfigured } from './support/in-process.ts';
import { newKek } from './support/kms.ts';
import { startServer } from './support/process.ts';
import { writeProject } from './support/recovery.ts';

let folder: string;
let environment: { BUNKMS_DATA_DIR: string; BUNKMS_KEK_FILE: string; BUNKMS_AUDIT_SHIP: string };
let shown = '';
beforeEach(() => {
  shown = '';
  folder = mkdtempSync(join(tmpdir(), 'bunkms-recovery-cli-'));
  environment = {
    BUNKMS_DATA_DIR: at('kms'),
    BUNKMS_KEK_FILE: at('kek'),
    BUNKMS_AUDIT_SHIP: `file:${at('shipped')}`,
  };
});
afterEach(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

async function run(...args: string[]): Promise<Finished> {
  const finished = await bunkms(environment, ...args);
  shown += `${finished.stdout}${finished.stderr}`;
  return finished;
}

async function ok(...args: string[]): Promise<string> {
  const finished = await run(...args);
  expect({ args, code: finished.code, stderr: finished.stderr }).toEqual({ args, code: 0, stderr: '' });
  return finished.stdout;
}

const json = async (...args: string[]) => JSON.parse(await ok(...args, '--json'));

/** One line on stderr, no stack. */
async function expectFailure(code: number, message: RegExp, ...args: string[]): Promise<string> {
  const finished = await run(...args);
  expect({ args, code: finished.code }).toEqual({ args, code });
  expect(finished.stderr.trim()).toMatch(message);
  expect(finished.stderr.trim().split('\n')).toHaveLength(1);
  return finished.stdout;
}

/** Runs the server until the shipped copy has the whole chain. */
async function ship(): Promise<void> {
  await using _server = await startConfigured(environment);
  await expect
    .poll(
      async () => existsSync(at('shipped')) && (await json('audit', 'verify-copy', at('shipped'))).missing,
    )
    .toBe(0);
}

const SERVICE = ['token', 'issue', '--typ', 'service', '--sub', 'x', '--keys', '*', '--scope'];

async function exportAll(token: string, name: string, versions: number): Promise<ExportedKey[]> {
  await using server = await startConfigured(environment);
  const all: ExportedKey[] = [];
  for (let version = 1; version <= versions; version++) {
    const answer = await call(server.internalUrl, `/v1/export/${name}?version=${version}`, { token });
    all.push(exportedKeySchema.parse(answer.json()));
  }
  return all;
}

/** Makes a backup. @returns the command that verifies it. */
async function verifyNew(name: string): Promise<string[]> {
  await ok('backup', at(name));
  return ['backup', 'verify', at(name)];
}

describe('bunkms backup, restore and recover', () => {
  it('restore what was lost, and exit with the codes in docs/keys.md', async () => {
    await run('init', '--create-kek');
    await ok('key', 'create', 'p-dek');
    await ok('key', 'create', 'gone-dek');
    const token = (await ok(...SERVICE, 'kms:export_key')).trim();
    const all = await exportAll(token, 'p-dek', 1);
    writeProject(at('bundoc'), 'p', all);

    const written = await json('backup', at('backup'));
    expect(written).toMatchObject({
      file: at('backup'),
      bytes: statSync(at('backup')).size,
      keys: 2,
      left_out: [],
    });
    expect(statSync(at('backup')).mode & 0o777).toBe(0o600);
    await expectFailure(5, /the file .* exists already/, 'backup', at('backup'));
    await expectFailure(5, /kms is a folder: name a file in it/, 'backup', at('kms'));
    expect(await json('backup', 'verify', at('backup'))).toMatchObject({
      ok: true,
      id: written.id,
      findings: [],
    });
    expect(await ok('backup', 'verify', at('backup'))).toContain(
      `audit: ${written.audit.seq}:${written.audit.hash}`,
    );
    await ok('key', 'destroy', 'gone-dek', '--confirm', 'gone-dek');
    await ok('key', 'rotate', 'p-dek');
    await ok('key', 'create', 'q-dek');
    const receipt = (await ok('audit', 'head')).trim();
    await ship();
    await expectFailure(5, /a store exists already/, 'restore', at('backup'));

    renameSync(at('kms'), at('lost'));
    const restore = (...more: string[]) => ['restore', at('backup'), ...more];
    await expectFailure(
      9,
      /a record \d+ existed/,
      ...restore('--audit-copy', at('shipped'), '--receipt', `9999:${'0'.repeat(64)}`),
    );
    await expectFailure(9, /a record \d+ existed/, ...restore('--receipt', receipt));
    const damaged = readFileSync(at('backup'));
    writeFileSync(at('cut'), damaged.subarray(0, 500));
    await expectFailure(8, /cut short or damaged/, 'restore', at('cut'));
    await expectFailure(8, /cut short or damaged/, 'backup', 'verify', at('cut'));
    await expectFailure(1, /does not exist/, 'restore', at('nothing'));
    writeFileSync(at('empty'), '');
    await expectFailure(8, /the audit copy contains no record/, ...restore('--audit-copy', at('empty')));
    // As from an unset variable: it must not restore without the copy.
    await expectFailure(2, /--audit-copy <files>/, ...restore('--audit-copy', ''));
    const kek = readFileSync(at('kek'));
    writeFileSync(at('kek'), `${newKek()}\n`);
    await expectFailure(7, /under the KEK [0-9a-f]{16}, which the ring lacks/, ...restore());
    await expectFailure(7, /the ring lacks/, 'backup', 'verify', at('backup'));
    rmSync(at('kek'));
    const missing = await expectFailure(2, /put the KEK of the backup there/, ...restore());
    expect(missing).not.toContain('openssl');
    writeFileSync(at('kek'), kek, { mode: 0o600 });
    expect(existsSync(at('kms'))).toBe(false);

    const restored = await json(...restore('--audit-copy', at('shipped'), '--receipt', receipt));
    expect(restored).toMatchObject({ destroyed: ['gone-dek'], incomplete: ['p-dek', 'q-dek'], held: [] });
    await ok(
      'audit',
      'verify',
      '--receipt',
      receipt,
      '--receipt',
      `${restored.audit.seq}:${restored.audit.hash}`,
    );
    await expectFailure(4, /key_destroyed/, 'key', 'show', 'gone-dek');
    await expectFailure(6, /key_damaged/, 'key', 'rotate', 'p-dek');
    // The project never had that version, so it is lost, and its number stays unused.
    const lost = /no backup in .* has these keys: q-dek; .* "bunkms key destroy <name> --confirm <name>"/;
    expect(await expectFailure(1, lost, 'recover', '--from', at('bundoc'))).toBe(
      'p  p-dek  sound  lost versions 2\nq-dek  lost  lost versions 1  no backup here has it\n',
    );
    await expectFailure(1, /something in it is damaged/, ...(await verifyNew('before')));
    expect(await json('key', 'rotate', 'p-dek', '--accept-loss')).toMatchObject({ version: 3 });
    expect(await exportAll(token, 'p-dek', 1)).toMatchObject([{ kcv: all[0]?.kcv, version: 1 }]);
    // The loss is accepted: later backups lack nothing.
    const destroy = ['key', 'destroy-version', 'p-dek', '2', '--confirm', 'p-dek'];
    await expectFailure(6, /key_damaged/, ...destroy);
    await ok(...destroy, '--accept-loss');
    await ok('key', 'destroy', 'q-dek', '--confirm', 'q-dek');
    expect(await ok('recover', '--from', at('bundoc'))).toBe('p  p-dek  sound\n');
    await ok(...(await verifyNew('after')));
    const { seq, hash } = (await json('audit', 'verify')).head;
    expect(await ok('audit', 'verify')).toContain(`intact\naudit: ${seq}:${hash}\n`);
  });

  it('rebuild a store that is completely lost', async () => {
    await run('init', '--create-kek');
    await ok('key', 'create', 'p-dek');
    await ok('key', 'rotate', 'p-dek');
    const token = (await ok(...SERVICE, 'kms:export_key')).trim();
    const all = await exportAll(token, 'p-dek', 2);
    writeProject(at('bundoc'), 'p', all);
    rmSync(at('kms'), { recursive: true });
    const recover = (...more: string[]) => ['recover', '--from', at('bundoc'), ...more];
    await expectFailure(1, /restore its backup with "bunkms restore <file>"/, ...recover());
    expect(await run('init')).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(`created a new store in ${at('kms')}: it knows no tokens or keys`),
    });
    await expectFailure(2, /is neither a data folder of Bundoc/, 'recover', '--from', folder);
    await expectFailure(2, /required option/, 'recover');
    expect(await json(...recover('--dry-run'))).toEqual({
      dry_run: true,
      projects: [{ project: 'p', key: 'p-dek', outcome: 'recovered', state: 'disabled', versions: [1, 2] }],
    });
    expect(await ok(...recover('--dry-run'))).toBe('p  p-dek  would recover  disabled  versions 1,2\n');
    await expectFailure(3, /key_not_found/, 'key', 'show', 'p-dek');
    expect(await ok(...recover())).toBe('p  p-dek  recovered  disabled  versions 1,2\n');
    expect(await ok('key', 'review')).toMatch(/^p-dek {2}disabled {2}2 {2}was unknown {2}\S+\n$/);
    expect(await ok('key', 'review', '--enable', 'p-dek')).toBe('p-dek  enabled\n');
    const again = (await ok(...SERVICE, 'kms:export_key')).trim();
    const recovered = await exportAll(again, 'p-dek', 2);
    expect(recovered.map(({ key_material_b64 }) => key_material_b64)).toEqual(
      all.map(({ key_material_b64 }) => key_material_b64),
    );
    writeFileSync(join(at('bundoc'), 'projects', 'p', 'project.json'), '');
    rmSync(join(at('bundoc'), 'projects', 'p', 'catalog'));
    expect(await expectFailure(1, /not recovered: p/, ...recover())).toMatch(
      /^p {4}unreadable {2}project.json is not a project file/,
    );
    await ok('audit', 'verify');
  });

  it('restore with the shipped copy of the audit chain, and check it against a receipt', async () => {
    await run('init', '--create-kek');
    await ok('key', 'create', 'p-dek');
    await ok('key', 'create', 'gone-dek');
    await ok('backup', at('backup'));
    await ok('key', 'destroy', 'gone-dek', '--confirm', 'gone-dek');
    const token = (await ok(...SERVICE, 'kms:export_key')).trim();
    const [released] = await exportAll(token, 'p-dek', 1);
    const receipt = `${released?.audit.seq}:${released?.audit.hash}`;
    {
      await using server = await startServer(environment);
      const lines = () => (existsSync(at('shipped')) ? readFileSync(at('shipped'), 'utf8') : '');
      await expect.poll(lines).toContain(`"hash":"${released?.audit.hash}"`);
      expect(server.process.exitCode).toBeNull();
    }
    const head = JSON.parse(await ok('audit', 'head', '--json'));
    const copied = await json('audit', 'verify-copy', at('shipped'));
    expect(copied).toMatchObject({ first: 1, missing: head.seq - copied.last.seq });
    const criticals = await json('audit', 'list', '--severity', 'CRITICAL', '--key', 'p-dek');
    expect(criticals.records).toMatchObject([{ seq: released?.audit.seq, action: 'key.export' }]);
    const page = await run('audit', 'list', '--limit', '1', '--after', '1');
    expect(page).toMatchObject({ code: 0, stderr: 'bunkms: there are more: --after 2\n' });
    expect(page.stdout).toMatch(/^2 {2}\S+Z {2}INFO {2}key.create {2}allowed {2}cli {2}p-dek/);
    renameSync(at('kms'), at('lost'));
    const restore = ['restore', at('backup'), '--audit-copy', at('shipped'), '--receipt', receipt];
    const whole = readFileSync(at('shipped'), 'utf8').trimEnd().split('\n');
    const without = whole.filter((line) => !line.includes('"key.destroy"'));
    expect(without.length).toBe(whole.length - 1);
    writeFileSync(at('shipped'), `${without.join('\n')}\n`);
    await expectFailure(8, /has a gap/, ...restore);
    await expectFailure(
      8,
      /begins with record|contains no record|does not exist/,
      'audit',
      'verify-copy',
      at('kek'),
    );
    await expectFailure(8, /is a folder: name the files in it/, 'audit', 'verify-copy', at('lost'));
    // Line n is record n; the chain now ends before the record of the receipt.
    writeFileSync(at('shipped'), `${whole.slice(0, (released?.audit.seq ?? 0) - 1).join('\n')}\n`);
    await expectFailure(9, /nothing is known after record/, ...restore);
    writeFileSync(at('shipped'), `${whole.join('\n')}\n`);
    const [first, second] = [at('shipped-1'), at('shipped-2')];
    writeFileSync(first, `${whole.slice(0, 6).join('\n')}\n`);
    writeFileSync(second, `${whole.slice(6).join('\n')}\n`);
    expect(await json('restore', at('backup'), '--audit-copy', first, '--audit-copy', second)).toMatchObject({
      knowledge: 'audit-copy',
      destroyed: ['gone-dek'],
      held: [],
      signing_key_kept: true,
    });
    await ok('audit', 'verify', '--receipt', receipt);
    expect(await exportAll(token, 'p-dek', 1)).toMatchObject([
      { key_material_b64: released?.key_material_b64 },
    ]);
    await expectFailure(4, /key_destroyed/, 'key', 'show', 'gone-dek');
    rmSync(at('kms'), { recursive: true });
    await ok('restore', at('backup'));
    // The copy has more records than this store.
    await expectFailure(1, /belongs to another history/, 'audit', 'verify-copy', first, second);
  });

  it('reveal no secret in their output or their files', async () => {
    await run('init', '--create-kek', '--service-token', at('token'));
    await ok('key', 'create', 'p-dek');
    await ok('key', 'rotate', 'p-dek');
    const all = await exportAll(readFileSync(at('token'), 'utf8').trim(), 'p-dek', 2);
    writeProject(at('bundoc'), 'p', all);
    for (const options of [[], ['--json']]) {
      const name = (what: string) => at(`${what}${options.length}`);
      await run('backup', name('backup'), ...options);
      await run('backup', 'verify', name('backup'), ...options);
      await run('recover', '--from', at('bundoc'), ...options);
      renameSync(at('kms'), name('kms'));
      await run('restore', name('backup'), ...options);
      await run('recover', '--from', at('bundoc'), ...options);
    }
    rmSync(at('kms'), { recursive: true });
    await run('init');
    await run('recover', '--from', at('bundoc'));
    const secrets = [
      readFileSync(at('kek'), 'utf8').trim(),
      readFileSync(at('token'), 'utf8').trim().split('.')[2]!,
      ...all.map(({ key_material_b64 }) => key_material_b64),
    ];
    const files = readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !['kek', 'token'].includes(entry.name))
      .map((entry) => readFileSync(join(entry.parentPath, entry.name)));
    expect(files.length).toBeGreaterThan(8);
    expect(shown).toContain('p-dek');
    for (const secret of secrets) {
      const bytes = Buffer.from(secret, 'base64');
      for (const form of [Buffer.from(secret.replace(/=+$/, '')), bytes, Buffer.from(bytes.toString('hex'))])
        for (const place of [Buffer.from(shown), ...files]) expect(place.includes(form)).toBe(false);
    }
    // The wrapped keys are sealed in the archive, and in no output.
    for (const { wrapped_b64 } of all) {
      expect(shown).not.toContain(wrapped_b64.slice(0, 40));
      for (const name of ['backup0', 'backup1'])
        for (const form of [Buffer.from(wrapped_b64), Buffer.from(wrapped_b64, 'base64')])
          expect(readFileSync(at(name)).includes(form)).toBe(false);
    }
  });
});
