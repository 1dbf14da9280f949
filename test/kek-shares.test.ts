import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startConfigured } from '../packages/bunkms/test/support/in-process.ts';
import { PATIENT } from '../packages/bunkms/test/support/process.ts';
import { TransitServer } from '../packages/bunkms/test/support/transit-server.ts';
import { bundocCommand } from './support/bundoc-command.ts';
import { startConfiguredBundoc } from './support/bundoc-process.ts';
import { call, PATIENT_BUNDOC } from './support/installation.ts';
import { newStorage } from './support/stored-projects.ts';

const DOCUMENT = '{"price": 1.10, "large":12345678901234567890}';
const NOTE = '/v1/projects/acme/collections/notes/documents/1';

/** Where the keepers and the backups are, apart from the machine. */
let safe: string;
/** The machine with both services. */
let folder: string;
const folders: string[] = [];
beforeEach(() => {
  safe = mkdtempSync(join(tmpdir(), 'bundoc-safe-'));
  folder = newFolder();
});
afterEach(() => {
  for (const path of [safe, ...folders.splice(0)]) rmSync(path, { recursive: true, force: true });
});

function newFolder(): string {
  const made = mkdtempSync(join(tmpdir(), 'bundoc-shares-'));
  folders.push(made);
  return made;
}

const at = (name: string) => join(folder, name);
const settings = () => ({ BUNKMS_DATA_DIR: at('kms'), BUNKMS_KEK_FILE: at('kek') });
const withOutside = () => ({ ...settings(), BUNKMS_OUTSIDE_KEYS_FILE: at('outside.json') });

function succeeded({ code, stdout, stderr }: Finished): string {
  expect(code, stderr).toBe(0);
  return stdout;
}
const bunkms = (environment: Record<string, string>, ...args: string[]) =>
  capturedRun(() => runBunkms(args, { NODE_ENV: 'test', ...PATIENT, ...environment }));
const done = async (environment: Record<string, string>, command: string) =>
  succeeded(await bunkms(environment, ...command.split(' ')));
const tokenFor = async (environment: Record<string, string>, args: string, scope: string) =>
  succeeded(await bunkms(environment, 'token', 'issue', '--sub', 'x', ...args.split(' '), '--scope', scope));

/** Runs `act` beside both services. */
async function whileRunning<T>(
  kmsEnvironment: Record<string, string>,
  storage: Readonly<Record<string, string>>,
  act: (urls: { readonly url: string; readonly kms: string }) => Promise<T>,
): Promise<T> {
  await using kms = await startConfigured(kmsEnvironment);
  await using bundoc = await startConfiguredBundoc({ ...bundocSettings(kms.internalUrl), ...storage });
  return await act({ url: bundoc.url, kms: kms.internalUrl });
}
const bundocSettings = (kmsUrl: string) => ({
  ...PATIENT_BUNDOC,
  BUNDOC_KMS_URL: kmsUrl,
  BUNDOC_KMS_TOKEN_FILE: at('kms-token'),
});
/** The text of the document, and the material of a key that belongs to no project. */
async function read(
  environment: Record<string, string>,
  { url, kms }: { readonly url: string; readonly kms: string },
) {
  const token = (await tokenFor(environment, '--typ client --project acme', 'docs:read')).trim();
  const exporter = (await tokenFor(environment, '--typ service --keys free-dek', 'kms:export_key')).trim();
  const { key_material_b64: material } = (await call(kms, '/v1/export/free-dek', { token: exporter })).json();
  return { document: (await call(url, NOTE, { token })).text, material };
}

/** Seals the ring by two outside keys; BunKMS rotates to a new KEK then. */
async function seal(providers: Record<string, TransitServer>): Promise<void> {
  const keys = Object.entries(providers).map(([name, server]) => {
    server.keys.set('bunkms', randomBytes(32));
    writeFileSync(at(`${name}.token`), server.newToken());
    return [name, { kind: 'transit', url: server.url, key: 'bunkms', token_file: `${name}.token` }];
  });
  writeFileSync(at('outside.json'), JSON.stringify({ keys: Object.fromEntries(keys) }));
  await done(withOutside(), 'seal migrate --slot one --slot two');
}

describe('when everything is lost but three shares of the KEKs and the backups', () => {
  it.each(['plain', 'sealed'])('a %s ring comes back, with the same keys and documents', async (kind) => {
    await done(settings(), `init --create-kek --service-token ${at('kms-token')}`);
    const environment = kind === 'sealed' ? withOutside() : settings();
    const written = await (async () => {
      await using one = await TransitServer.start();
      await using two = await TransitServer.start();
      if (kind === 'sealed') await seal({ one, two });
      await done(environment, 'key create free-dek');
      const storage = (await newStorage(at('data'))).environment;
      const all = await whileRunning(environment, storage, async (urls) => {
        const token = (
          await tokenFor(environment, '--typ client --project *', 'docs:read docs:write docs:admin')
        ).trim();
        expect((await call(urls.url, NOTE, { method: 'PUT', token, body: DOCUMENT })).status).toBe(201);
        const online = { BUNDOC_URL: urls.url, BUNDOC_TOKEN: token };
        succeeded(await bundocCommand(online, ['backup', '--all', join(safe, 'projects')]));
        return await read(environment, urls);
      });
      await done(environment, `backup ${join(safe, 'kms.backup')}`);
      await done(environment, `kek split --shares 5 --threshold 3 --to ${at('shares')}`);
      return all;
    })();
    expect(written.document).toContain('12345678901234567890');
    expect(written.material).toMatch(/^.{43}=$/);
    mkdirSync(join(safe, 'shares'));
    for (const name of readdirSync(at('shares')).filter((one) => /-[245]-of-5/.test(one)))
      copyFileSync(join(at('shares'), name), join(safe, 'shares', name));
    // The machine burns, and so do the providers of the outside keys.
    rmSync(folder, { recursive: true });
    folder = newFolder();

    const shares = readdirSync(join(safe, 'shares')).map((name) => join(safe, 'shares', name));
    expect(shares).toHaveLength(3);
    succeeded(await bunkms({}, 'kek', 'combine', ...shares, '--to', at('kek')));
    await done(settings(), `restore ${join(safe, 'kms.backup')}`);
    await done(settings(), `init --service-token ${at('kms-token')}`);
    await done(settings(), 'key review --enable-all');
    const storage = (await newStorage(at('data'))).environment;
    await restoreProjects(storage);
    expect(await whileRunning(settings(), storage, (urls) => read(settings(), urls))).toEqual(written);
    await done(settings(), 'kek verify');
    await done(settings(), 'audit verify');
  });
});

/** Restores the projects into a new storage, to which BunKMS gives their keys. */
async function restoreProjects(storage: Readonly<Record<string, string>>): Promise<void> {
  await using kms = await startConfigured(settings());
  const restore = () =>
    bundocCommand({ ...bundocSettings(kms.internalUrl), ...storage }, ['restore', join(safe, 'projects')]);
  const unheld = await restore();
  expect(unheld.code, unheld.stderr).toBe(1);
  await done(settings(), String(/"bunkms (storage [^"]*)"/.exec(unheld.stderr)?.[1]));
  succeeded(await restore());
}
